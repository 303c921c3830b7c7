"""Intervals and tests: the prompt cluster is the unit of a claim about a checkpoint, the seed of one about a method.

With one seed an interval resamples prompt clusters (topics); with several it is the t-interval over the seeds' means,
since three seeds have ten distinct multisets and are too few to resample.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

Floats = NDArray[np.float64]
Sample = tuple[Sequence[Any] | NDArray[Any], Sequence[Any] | NDArray[Any]]  # values and their clusters, of one seed
Outcome = Literal["better", "worse", "cannot tell"]

LEVEL = 0.95
POWER = 0.80
RESAMPLES = 10_000
MARGIN = 0.05  # a loss to SFT that is none: a twentieth of the scale of gold and of the win rate, both 0 to 1
FEWEST_PROMPTS_LENGTH_CONTROLLED = 300
_EXACT_UP_TO = 13  # 2^13 sign patterns are fewer than RESAMPLES
_CHUNK = 1000


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float
    standard_error: float

    @property
    def known(self) -> bool:
        """Whether there was enough data for an interval."""
        return math.isfinite(self.low) and math.isfinite(self.high)


@dataclass(frozen=True)
class Verdict:
    """What the data say of a difference, and about what: a checkpoint or a method."""

    outcome: Outcome
    unit: str  # "checkpoint, 1 seed" or "method, n seeds"
    minimum_detectable_difference: float  # found with 80 % power at the 5 % level

    def __str__(self) -> str:
        """Return it as printed in tables."""
        return f"{self.outcome} ({self.unit})"


@dataclass(frozen=True)
class Difference:
    """A paired difference with its interval, test and verdict."""

    difference: float
    low: float
    high: float
    p_value: float
    test: str  # in words: what was tested, and how small its p can be
    verdict: Verdict
    smallest_p: float  # that flipping the signs of these clusters, or seeds, could give


def bootstrap_interval(values: ArrayLike, clusters: ArrayLike, n: int = RESAMPLES, seed: int = 0) -> Interval:
    """Percentile interval of a mean, resampling whole clusters with replacement.

    Args:
        values: One value a row (N,); NaN rows are left out.
        clusters: The cluster of each row (N,); rows of one cluster stay together.
        n: Resamples.
        seed: Of the resampling.

    Returns:
        The mean over rows; its limits are NaN with fewer than two clusters.
    """
    sums, counts = _cluster_sums(values, clusters)
    if counts.sum() == 0:
        return Interval(math.nan, math.nan, math.nan, math.nan)
    mean = float(sums.sum() / counts.sum())
    if len(sums) < 2:
        return Interval(mean, math.nan, math.nan, math.nan)
    means = _resampled(sums, n, seed) / _resampled(counts, n, seed)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(mean, float(low), float(high), float(means.std(ddof=1)))


def t_interval(means: ArrayLike) -> Interval:
    """Student's t-interval of a mean over seeds (n,), n of 2 or more."""
    seeds = np.asarray(means, dtype=float)
    error = float(seeds.std(ddof=1) / math.sqrt(len(seeds)))
    half = float(stats.t.ppf(1 - (1 - LEVEL) / 2, len(seeds) - 1)) * error
    mean = float(seeds.mean())
    return Interval(mean, mean - half, mean + half, error)


def mean_interval(samples: Sequence[Sample], n: int = RESAMPLES, seed: int = 0) -> Interval:
    """Interval of a mean over one seed's prompt clusters, or over several seeds' means.

    Args:
        samples: Values and clusters, one pair a seed.
        n: Resamples, with one seed.
        seed: Of the resampling.
    """
    means = [mean for mean in (_mean(values) for values, _ in samples) if math.isfinite(mean)]
    if len(means) > 1:
        return t_interval(means)
    return bootstrap_interval(*samples[0], n=n, seed=seed) if samples else bootstrap_interval([], [])


def sign_flip_p(
    differences: ArrayLike, clusters: ArrayLike, n: int = RESAMPLES, seed: int = 0, *, one_sided: bool = False
) -> float:
    """Return p of a mean difference of 0 (one-sided: of 0 or less), flipping the signs of whole clusters.

    Exact up to 13 clusters, else by n random flips, the observed one counted among them: never below 2^(1-clusters)
    (half of that, one-sided) or 1/(n+1).
    """
    sums, _ = _cluster_sums(differences, clusters)
    sums = sums[sums != 0]  # a cluster without a difference takes no side
    if not len(sums):
        return 1.0
    observed = sums.sum() if one_sided else abs(sums.sum())
    observed -= 1e-12 * abs(observed)
    exact = len(sums) <= _EXACT_UP_TO
    signs = np.array(list(itertools.product((1.0, -1.0), repeat=len(sums)))) if exact else _signs(len(sums), n, seed)
    flipped = np.concatenate([signs[i : i + _CHUNK].astype(float) @ sums for i in range(0, len(signs), _CHUNK)])
    reached = int(np.sum((flipped if one_sided else np.abs(flipped)) >= observed))
    return reached / len(flipped) if exact else (1 + reached) / (1 + n)


def not_worse_p(samples: Sequence[Sample], margin: float, n: int = RESAMPLES, seed: int = 0) -> float:
    """Return the one-sided p of "a loses to b by the margin or more": small where a is not worse by that much.

    The paired test of :func:`paired_difference`, of the same differences raised by the margin.

    Args:
        samples: Per-prompt differences (a - b) and their clusters, one pair a seed.
        margin: The largest loss that counts as none, in units of the differences.
        n: Sign flips, with one seed.
        seed: Of these.
    """
    if len(samples) == 1:
        [(values, clusters)] = samples
        return sign_flip_p(np.asarray(values, dtype=float) + margin, clusters, n, seed, one_sided=True)
    interval = mean_interval(samples)
    raised = interval.mean + margin
    if interval.standard_error == 0:
        return float(raised <= 0)
    return float(stats.t.sf(raised / interval.standard_error, len(samples) - 1))


def paired_difference(samples: Sequence[Sample], n: int = RESAMPLES, seed: int = 0) -> Difference:
    """Test a mean paired difference against 0.

    Args:
        samples: Per-prompt differences (a - b, positive where a is better) and their clusters, one pair a seed.
        n: Resamples and sign flips, with one seed.
        seed: Of both.

    Returns:
        With one seed a claim about a checkpoint (prompt clusters resampled, sign-flip test over them); with several
        one about the method (t-interval and t-test over the seeds' means).
    """
    interval = mean_interval(samples, n, seed)
    if len(samples) == 1:
        unit, spread = "checkpoint, 1 seed", float(stats.norm.ppf(1 - (1 - LEVEL) / 2) + stats.norm.ppf(POWER))
        clusters = len(np.unique(np.asarray(samples[0][1], dtype=str)))
        p_value, smallest = sign_flip_p(*samples[0], n=n, seed=seed), max(2.0 ** (1 - clusters), 1 / (1 + n))
        test = f"sign-flip test over {clusters} prompt clusters"
    else:
        seeds = len(samples)
        smallest = 2.0 ** (1 - seeds)
        unit = f"method, {seeds} seeds"
        spread = float(stats.t.ppf(1 - (1 - LEVEL) / 2, seeds - 1) + stats.t.ppf(POWER, seeds - 1))
        p_value = _t_test_p(interval, seeds)
        test = f"t-test over {seeds} seeds (a sign-flip test of them could not give p below {smallest:g})"
    outcome = outcome_of(interval.low, interval.high)
    verdict = Verdict(outcome, unit, spread * interval.standard_error)
    return Difference(interval.mean, interval.low, interval.high, p_value, test, verdict, smallest)


def outcome_of(low: float, high: float) -> Outcome:
    """Return what an interval of a difference says: it must exclude 0 to say anything."""
    if low > 0:
        return "better"
    return "worse" if high < 0 else "cannot tell"


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's step-down adjusted p-values of one family (Holm, 1979), in the given order."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def length_controlled_win_rate(wins: ArrayLike, lengths: ArrayLike, baseline_lengths: ArrayLike) -> float | None:
    """Win rate had both sides been equally long (Dubois et al., 2024; arXiv:2404.04475), in its minimal form.

    ``logit P(win) = w + v tanh((baseline length - length) / std)`` is fitted to soft wins and read at equal lengths.

    Args:
        wins: 1, .5 or 0 a row (N,).
        lengths: Characters of the completions (N,).
        baseline_lengths: Characters of the baseline's completions (N,).

    Returns:
        The rate in [0, 1], or ``None`` where it is not estimable: under 300 rows, no spread in length, no convergence.
    """
    target = np.asarray(wins, dtype=float)
    gap = np.asarray(baseline_lengths, dtype=float) - np.asarray(lengths, dtype=float)
    if len(target) < FEWEST_PROMPTS_LENGTH_CONTROLLED or gap.std() == 0:
        return None
    features = np.stack([np.ones_like(gap), np.tanh(gap / gap.std())], axis=1)

    def loss(weights: Floats) -> float:
        logits = features @ weights
        return float(np.mean(np.logaddexp(0, logits) - target * logits))

    fitted = optimize.minimize(loss, np.zeros(2), method="BFGS")
    if not np.all(np.abs(fitted.x) < 8):  # wins that method or lengths separate have no finite fit
        return None
    return float(1 / (1 + math.exp(-fitted.x[0])))


def _mean(values: ArrayLike) -> float:
    known = np.asarray(values, dtype=float)
    known = known[~np.isnan(known)]
    return float(known.mean()) if len(known) else math.nan


def _cluster_sums(values: ArrayLike, clusters: ArrayLike) -> tuple[Floats, Floats]:
    numbers = np.asarray(values, dtype=float)
    known = ~np.isnan(numbers)
    _, codes = np.unique(np.asarray(clusters, dtype=str)[known], return_inverse=True)
    return np.bincount(codes, weights=numbers[known]).astype(float), np.bincount(codes).astype(float)


def _resampled(totals: Floats, n: int, seed: int) -> Floats:
    counts = _draws(len(totals), n, seed)
    return np.concatenate([counts[i : i + _CHUNK].astype(float) @ totals for i in range(0, n, _CHUNK)])


@functools.lru_cache(maxsize=4)
def _draws(clusters: int, n: int, seed: int) -> NDArray[np.int16]:
    """How often each cluster is drawn, (n, clusters): the same draws for all methods, so they are kept."""
    rng = np.random.default_rng([seed, clusters])
    drawn = np.empty((n, clusters), dtype=np.int16)
    for i in range(n):
        drawn[i] = np.bincount(rng.integers(0, clusters, clusters), minlength=clusters)
    return drawn


@functools.lru_cache(maxsize=4)
def _signs(clusters: int, n: int, seed: int) -> NDArray[np.int8]:
    """Random signs (n, clusters), kept as the draws are."""
    rng = np.random.default_rng([seed, clusters, 1])
    chunks = [rng.choice(np.array([1, -1], dtype=np.int8), size=(min(_CHUNK, n - start), clusters))
              for start in range(0, n, _CHUNK)]  # fmt: skip
    return np.concatenate(chunks)


def _t_test_p(interval: Interval, seeds: int) -> float:
    if interval.standard_error == 0:
        return 1.0 if interval.mean == 0 else 0.0
    return float(2 * stats.t.sf(abs(interval.mean) / interval.standard_error, seeds - 1))
