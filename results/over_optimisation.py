"""Gold against KL by the forms of Gao, Schulman and Hilton (2022; arXiv:2210.10760), d = sqrt(KL) and R(0) = 0.

Best-of-n: R = d (alpha - beta d), which peaks at d = alpha / (2 beta). Reinforcement learning: R = d (alpha - beta
log d), which peaks at d = exp(alpha / beta - 1); its slope at 0 is infinite, so points near 0 are left out of its fit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from alignarena.results.resampling import Floats

Form = Literal["best_of_n", "rl"]

NEAREST = 0.5  # d from which on the form of reinforcement learning is fitted, sqrt(nats): ours, the paper has no number


@dataclass(frozen=True)
class OverOptimisation:
    """A fitted curve of the reward above the reference model's.

    Attributes:
        form: Which of the two.
        alpha: Reward that a first step along sqrt(KL) gains.
        beta: What is lost again further on; 0 or less: no peak.
        explained: R squared of the fit.
        points: Fitted.
    """

    form: Form
    alpha: float
    beta: float
    explained: float
    points: int

    @property
    def peak(self) -> float:
        """The KL, in nats, from which on the reward falls; infinite where it never does."""
        if self.beta <= 0:
            return math.inf
        root = self.alpha / (2 * self.beta) if self.form == "best_of_n" else math.exp(self.alpha / self.beta - 1)
        return max(0.0, root) ** 2

    def reward(self, kl: ArrayLike) -> Floats:
        """Return the reward above the reference model's at each KL (...)."""
        return np.asarray(_features(np.sqrt(np.asarray(kl, dtype=float)), self.form) @ [self.alpha, self.beta])


def fit(kl: ArrayLike, reward: ArrayLike, form: Form) -> OverOptimisation | None:
    """Fit one form by least squares, in which both are linear; ``None`` with fewer than three points to fit.

    Args:
        kl: Nats (P,).
        reward: Gold, or the proxy, minus that of the reference model (P,).
        form: ``best_of_n`` or ``rl``.
    """
    roots, rewards = np.sqrt(np.maximum(np.asarray(kl, dtype=float), 0.0)), np.asarray(reward, dtype=float)
    kept = roots >= (NEAREST if form == "rl" else 0.0)
    kept &= ~np.isnan(rewards)
    features, wanted = _features(roots[kept], form), rewards[kept]
    if len(wanted) < 3 or np.linalg.matrix_rank(features) < 2:
        return None
    weights = np.linalg.lstsq(features, wanted)[0]
    left, whole = float(((wanted - features @ weights) ** 2).sum()), float(((wanted - wanted.mean()) ** 2).sum())
    explained = 1 - left / whole if whole > 0 else math.nan
    return OverOptimisation(form, float(weights[0]), float(weights[1]), explained, len(wanted))


def _features(roots: Floats, form: Form) -> Floats:
    """The factors of alpha and beta (..., 2)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        loss = roots**2 if form == "best_of_n" else np.where(roots > 0, roots * np.log(roots), 0.0)
    return np.stack([roots, -loss], axis=-1)
