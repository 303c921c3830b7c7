"""How good a reward model is, on pairs whose better side is known: pure functions of score differences.

A difference is the score of the better completion minus that of the worse one. Where scores are log-odds, as a
Bradley-Terry model's are, sigma(difference) is the probability that the model gives to what was in fact preferred.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize
from scipy.special import expit

Floats = NDArray[np.float64]

STRENGTHS = (0.1, 0.25, 0.5)  # differences of gold: the grades of the simulated annotator
_WIDEST = 50.0  # bound of the temperature, either way


@dataclass(frozen=True)
class Calibration:
    """How far the probabilities of a reward model can be believed."""

    log_loss: float  # nats a pair; log 2 for a model that knows nothing
    brier: float  # mean (1 - p)^2; 1/4 for such a model
    ece: float  # expected calibration error


def right(differences: ArrayLike) -> Floats:
    """Return 1 for each pair (N,) in the right order, 1/2 for a tie, else 0."""
    return np.asarray((np.sign(np.asarray(differences, float)) + 1.0) / 2.0)


def accuracy(differences: ArrayLike) -> float:
    """Return the share of pairs (N,) in the right order, ties half; NaN of none."""
    found = right(differences)
    return float(found.mean()) if len(found) else float("nan")


def calibration(differences: ArrayLike, bins: int = 10) -> Calibration:
    """Return log loss, Brier score and expected calibration error of differences (N,) in log-odds.

    The error bins pairs by confidence sigma(abs(difference)) into bins of equal mass and averages, over pairs, how far
    a bin's mean confidence is from the share of its pairs in the right order.
    """
    margins = np.asarray(differences, float)
    if not len(margins):
        return Calibration(float("nan"), float("nan"), float("nan"))
    confidence, correct = expit(np.abs(margins)), right(margins)
    order = np.argsort(confidence, kind="stable")
    gaps = [abs(float(confidence[part].mean() - correct[part].mean())) * len(part)
            for part in np.array_split(order, bins) if len(part)]  # fmt: skip
    log_loss, brier = np.logaddexp(0.0, -margins).mean(), (expit(-margins) ** 2).mean()
    return Calibration(float(log_loss), float(brier), sum(gaps) / len(margins))


def temperature(differences: ArrayLike) -> float:
    """Return what differences (N,) are divided by for the least log loss: the scale a score need not have."""
    margins = np.asarray(differences, float)

    def loss(log_temperature: float) -> float:
        return float(np.logaddexp(0.0, -margins / np.exp(log_temperature)).mean())

    bound = np.log(_WIDEST) + np.log(max(float(np.abs(margins).mean()), 1e-9)) if len(margins) else 0.0
    found = optimize.minimize_scalar(loss, bounds=(bound - 2 * np.log(_WIDEST), bound), method="bounded")
    return float(np.exp(found.x))


def by_bin(differences: ArrayLike, values: ArrayLike, edges: Sequence[float]) -> list[tuple[str, int, float]]:
    """Return name, pairs and accuracy of each bin of ``values`` (N,) that the edges cut; an empty bin has NaN."""
    margins, place = np.asarray(differences, float), np.digitize(np.asarray(values, float), edges)
    names = [f"below {edges[0]:g}", *(f"{a:g} to {b:g}" for a, b in pairwise(edges)),
             f"{edges[-1]:g} and more"]  # fmt: skip
    return [(name, int((place == i).sum()), accuracy(margins[place == i])) for i, name in enumerate(names)]


def error_correlation(first: ArrayLike, second: ArrayLike) -> float:
    """Return the correlation of two models' errors over the same pairs; NaN where one errs always or never alike.

    0: the second catches what the first gets wrong as well as anything else. 1: it fails with it.
    """
    errors = right(first), right(second)
    if any(len(one) < 2 or one.std() == 0 for one in errors):
        return float("nan")
    return float(np.corrcoef(*errors)[0, 1])
