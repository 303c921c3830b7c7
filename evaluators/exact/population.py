"""The policy that is best for a loss of pairs over all pairs there are, found by search where no formula is known.

Arrays as in ``targets``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from alignarena.core.errors import RunFailed
from alignarena.evaluators.exact.optimum import Floats, normalised

_BLOCK = 8  # rows of an N x N matrix at once: what stays in a cache
_TOLERANCE = 1e-7  # of the gradient
_LEAST_GRADIENT = 1e-5  # rounding may stop a search above the tolerance asked for; this is still a minimum
_LEAST_MASS = 1e-12  # leaves rarer than this in the data are not worth a better-scaled search
_LARGEST = 350.0  # nats: the exponential of twice as much is still a number


class Contrast(NamedTuple):
    """A loss of pairs, ``softplus(lost(rejected) - won(chosen)) + alone(chosen)``, at some scores s (N,).

    Each part comes with its derivative by s, so that the N x N pairs cost one product, one quotient and one logarithm
    each: the exponential of a difference is a product of exponentials.
    """

    won: Floats
    won_slope: Floats
    lost: Floats
    lost_slope: Floats
    alone: Floats
    alone_slope: Floats
    weight: float = 1.0  # of the softplus


PairLoss = Callable[[Floats], Contrast]


def population_minimum(
    loss: PairLoss, log_reference: Floats, gold: Floats, log_data: Floats, scale: Floats, offset: Floats
) -> Floats:
    """Return the policy (P, N) that minimises a pairwise loss over all pairs, prompt by prompt, from the reference.

    The loss of a pair is f(s(chosen), s(rejected)) with s(y) = scale(y) log pi(y) + offset(y), so the mean over
    labels is p f(s(y), s(y')) + (1 - p) f(s(y'), s(y)). Both orders of a pair are drawn alike and p(y', y) is
    1 - p(y, y'), so the mean over pairs is 2 E[p f(s(y), s(y'))]: one evaluation on the N x N matrix.

    Args:
        loss: f, from the scores of all leaves.
        log_reference: Where the search starts (P, N), finite.
        gold: The hidden reward, whose differences label the pairs (P, N).
        log_data: What both completions are drawn from (P, N).
        scale: Of log pi in s (P, N).
        offset: Added to it (P, N).

    Raises:
        RunFailed: The search ends away from a minimum.
    """
    rows = zip(log_reference, gold, log_data, scale, offset, strict=True)
    return np.stack([_minimum(loss, *row) for row in rows])


def _minimum(
    loss: PairLoss, log_reference: Floats, gold: Floats, log_data: Floats, scale: Floats, offset: Floats
) -> Floats:
    """Return one prompt's minimum (N,).

    A leaf's curvature is in proportion to its mass in the data, over ten orders of magnitude; the search is on
    logits times the root of that mass, where it is even.
    """
    data = np.exp(log_data)
    labelled = 2 * data[:, None] * data[None] * expit(gold[:, None] - gold[None])
    root = np.sqrt(np.maximum(data, _LEAST_MASS))

    def value_and_gradient(scaled: Floats) -> tuple[float, Floats]:
        log_policy = normalised(scaled / root)
        value, gradient = _over_pairs(loss(scale * log_policy + offset), labelled)
        gradient *= scale
        return value, (gradient - np.exp(log_policy) * gradient.sum()) / root

    found = minimize(
        value_and_gradient,
        log_reference * root,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 2000, "maxfun": 2000, "maxcor": 20, "ftol": 1e-15, "gtol": _TOLERANCE},
    )
    if not np.abs(found.jac).max() < _LEAST_GRADIENT:
        raise RunFailed(f"no minimum of the population loss after {found.nfev} evaluations: {found.message}")
    return normalised(found.x / root)


def _over_pairs(at: Contrast, labelled: Floats) -> tuple[float, Floats]:
    """Return the sum of a loss over (chosen, rejected) pairs with their weights (N, N), and its gradient (N,)."""
    won, lost = np.exp(-np.clip(at.won, -_LARGEST, _LARGEST)), np.exp(np.clip(at.lost, -_LARGEST, _LARGEST))
    total, by_won, by_lost = 0.0, np.empty_like(won), np.zeros_like(lost)
    for first in range(0, len(won), _BLOCK):
        rows = slice(first, first + _BLOCK)
        odds = won[rows, None] * lost[None]
        with_one = odds + 1
        wrong = odds / with_one * labelled[rows]
        by_won[rows] = wrong.sum(1)
        by_lost += np.ones(len(wrong)) @ wrong
        total += float(np.vdot(labelled[rows], np.log(with_one, out=with_one)))
    chosen = labelled.sum(1)
    gradient = at.weight * (by_lost * at.lost_slope - by_won * at.won_slope) + chosen * at.alone_slope
    return at.weight * total + float(chosen @ at.alone), gradient
