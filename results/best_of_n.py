"""Best-of-n without sampling it anew: its KL and its expected reward from N samples of the policy inside."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.special import gammaln

from alignarena.results.resampling import Floats


def best_of_n_kl(n: int) -> float:
    """Return log n - (n - 1) / n, nats: exact where scores never tie, else an upper bound (Beirami et al., 2024)."""
    return math.log(n) - (n - 1) / n


def exact_best_of_n_kl(n: int, masses: ArrayLike) -> float:
    """Return KL(best-of-n || policy) where scores have few levels and ties are broken at random.

    Args:
        n: Samples drawn for each answer.
        masses: Chance of each level of the score, from the lowest to the highest (L,), adding up to 1.
    """
    chances = np.asarray(masses, dtype=float)
    below = np.concatenate([[0.0], np.cumsum(chances)])
    chosen = np.diff(np.minimum(below, 1.0) ** n)
    kept = chosen > 0
    return float((chosen[kept] * np.log(chosen[kept] / chances[kept])).sum())


def best_of_n_reward(n: int, scores: ArrayLike, rewards: ArrayLike | None = None) -> Floats:
    """Return the expected reward of the best of n, unbiased from N >= n samples: sum_i r_(i) C(i - 1, n - 1) / C(N, n).

    Samples whose scores tie share their chances, as if ties were broken at random.

    Args:
        n: Samples drawn for each answer.
        scores: What the best is chosen by (..., N).
        rewards: What it is then worth (..., N): gold, where a proxy chose; the scores themselves by default.

    Returns:
        One value for each row of samples (...).
    """
    chosen_by = np.asarray(scores, dtype=float)
    worth = chosen_by if rewards is None else np.asarray(rewards, dtype=float)
    count = chosen_by.shape[-1]
    if not 1 <= n <= count:
        raise ValueError(f"best of {n} needs as many samples, not {count}")
    ranks = np.arange(1, count + 1)
    # chance that the best of n ranks i or below: C(i, n) / C(N, n)
    below = np.exp(_log_choose(np.maximum(ranks, n), n) - _log_choose(np.array(count), n))
    cumulative = np.concatenate([[0.0], np.where(ranks >= n, below, 0.0)])
    highest = stats.rankdata(chosen_by, "max", axis=-1).astype(int)
    lowest = stats.rankdata(chosen_by, "min", axis=-1).astype(int)
    chances = (cumulative[highest] - cumulative[lowest - 1]) / (highest - lowest + 1)
    return np.asarray((chances * worth).sum(axis=-1))


def _log_choose(count: NDArray[np.int64], n: int) -> Floats:
    return np.asarray(gammaln(count + 1) - gammaln(n + 1) - gammaln(count - n + 1))
