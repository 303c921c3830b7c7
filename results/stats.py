"""Intervals and tests: the prompt cluster is the unit of a claim about a checkpoint, the seed of one about a method.

With one seed an interval resamples prompt clusters (topics). With several it is a t-interval over the seeds' means,
since three seeds have ten distinct multisets and are too few to resample, widened by what all seeds owe to the prompts
they share: the same topics are asked of every seed, so their luck does not average out over seeds.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from alignarena.results.resampling import RESAMPLES, Floats, resampled, signs, units_of

Sample = tuple[Sequence[Any] | NDArray[Any], Sequence[Any] | NDArray[Any]]  # values and their clusters, of one seed
Outcome = Literal["better", "worse", "cannot tell"]

LEVEL = 0.95
POWER = 0.80
MARGIN = 0.05  # a loss to SFT that is none: a twentieth of the scale of gold and of the win rate, both 0 to 1
_EXACT_UP_TO = 13  # 2^13 sign patterns are fewer than RESAMPLES
_CHUNK = 1000
_ROUNDING = 1e-12  # smaller shares than this are of floating point


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float
    standard_error: float
    freedom: float = math.inf  # degrees of freedom of the standard error

    @property
    def known(self) -> bool:
        """Whether there was enough data for an interval."""
        return math.isfinite(self.low) and math.isfinite(self.high)


UNKNOWN = Interval(math.nan, math.nan, math.nan, math.nan)


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
    sums, counts, units = _sums([(values, clusters)])
    if counts.sum() == 0:
        return UNKNOWN
    mean = float(sums.sum() / counts.sum())
    if units < 2:
        return Interval(mean, math.nan, math.nan, math.nan)
    return percentile_interval(mean, (resampled(sums, n, seed) / resampled(counts, n, seed))[:, 0], units)


def percentile_interval(estimate: float, replicates: Floats, units: int) -> Interval:
    """Return the percentile interval of an estimate by what resamples of so many clusters gave (n,).

    The percentiles are a little farther out than 2.5 and 97.5 (Hesterberg, 2015): a mean over few clusters scatters as
    Student's t, and resamples scatter less than that by (units - 1) / units.
    """
    reach = stats.t.ppf(1 - (1 - LEVEL) / 2, units - 1) * math.sqrt(units / (units - 1))
    tail = float(stats.norm.sf(reach))
    low, high = np.quantile(replicates, [tail, 1 - tail])
    return Interval(estimate, float(low), float(high), float(replicates.std(ddof=1)))


def t_interval(means: ArrayLike) -> Interval:
    """Student's t-interval of a mean over seeds (n,), n of 2 or more."""
    seeds = np.asarray(means, dtype=float)
    return _t_interval(float(seeds.mean()), float(seeds.var(ddof=1)) / len(seeds), len(seeds) - 1)


def crossed_interval(estimates: Floats, replicates: Floats, units: int) -> Interval:
    """Interval of any statistic over several seeds that answer the same prompts.

    Seeds and prompts are crossed: var(mean) = var(estimates) / seeds + the variance of what seeds share, which is the
    mean covariance between two seeds' estimates when both see the same resampled clusters. Degrees of freedom after
    Satterthwaite (1946): seeds - 1 where prompts matter little, more where they matter most. Few seeds tell the two
    parts apart badly, so the interval is never narrower than that of the seeds' estimates alone. Seeds whose estimates
    are equal, as counts of wins may be by chance, do not show how they vary: by as much as resamples do that they do
    not share, at the least.

    Args:
        estimates: One a seed (seeds,), 2 or more.
        replicates: The same of each resample, with common draws (n, seeds).
        units: How many clusters were resampled.
    """
    seeds, spread, shared = len(estimates), float(estimates.var(ddof=1)), 0.0
    if units > 1:
        covariance = np.cov(replicates, rowvar=False) * units / (units - 1)
        own = float(np.trace(covariance))
        shared = max(0.0, (float(covariance.sum()) - own) / (seeds * (seeds - 1)))
        if spread < _ROUNDING * (own / seeds - shared):
            spread = own / seeds - shared
    between = spread / seeds
    alone = _t_interval(float(estimates.mean()), between, seeds - 1)
    if shared == 0:
        return alone
    freedom = (between + shared) ** 2 / (between**2 / (seeds - 1) + shared**2 / (units - 1))
    return max(alone, _t_interval(alone.mean, between + shared, freedom), key=lambda one: one.high)


def mean_interval(samples: Sequence[Sample], n: int = RESAMPLES, seed: int = 0) -> Interval:
    """Interval of a mean over one seed's prompt clusters, or over several seeds and the clusters they share.

    Args:
        samples: Values and clusters, one pair a seed; a seed without a known value is left out.
        n: Resamples.
        seed: Of the resampling.
    """
    known = [sample for sample in samples if not np.all(np.isnan(np.asarray(sample[0], dtype=float)))]
    if len(known) < 2:
        return bootstrap_interval(*known[0], n=n, seed=seed) if known else UNKNOWN
    sums, counts, units = _sums(known)
    drawn, rows = resampled(sums, n, seed), resampled(counts, n, seed)
    filled = (rows > 0).all(axis=1)  # a seed with few of the clusters may miss a draw
    means = drawn[filled] / rows[filled]
    return crossed_interval(sums.sum(axis=0) / counts.sum(axis=0), means, units if len(means) > 1 else 1)


def sign_flip_p(
    differences: ArrayLike, clusters: ArrayLike, n: int = RESAMPLES, seed: int = 0, *, one_sided: bool = False
) -> float:
    """Return p of a mean difference of 0 (one-sided: of 0 or less), flipping the signs of whole clusters.

    Exact up to 13 clusters, else by n random flips, the observed one counted among them: never below 2^(1-clusters)
    (half of that, one-sided) or 1/(n+1).
    """
    sums = _sums([(differences, clusters)])[0][:, 0]
    sums = sums[sums != 0]  # a cluster without a difference takes no side
    if not len(sums):
        return 1.0
    observed = sums.sum() if one_sided else abs(sums.sum())
    observed -= 1e-12 * abs(observed)
    exact = len(sums) <= _EXACT_UP_TO
    flips = np.array(list(itertools.product((1.0, -1.0), repeat=len(sums)))) if exact else signs(len(sums), n, seed)
    flipped = np.concatenate([flips[i : i + _CHUNK].astype(float) @ sums for i in range(0, len(flips), _CHUNK)])
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
    raised = [(np.asarray(values, dtype=float) + margin, clusters) for values, clusters in samples]
    if len(raised) > 1:
        interval = mean_interval(raised)
        if not _without_error(interval):
            return float(stats.t.sf(interval.mean / interval.standard_error, len(raised) - 1))
    return sign_flip_p(*_pooled(raised), n=n, seed=seed, one_sided=True)


def paired_difference(samples: Sequence[Sample], n: int = RESAMPLES, seed: int = 0) -> Difference:
    """Test a mean paired difference against 0.

    Args:
        samples: Per-prompt differences (a - b, positive where a is better) and their clusters, one pair a seed.
        n: Resamples and sign flips, with one seed.
        seed: Of both.

    Returns:
        With one seed a claim about a checkpoint (prompt clusters resampled, sign-flip test over them); with several
        one about the method (t-interval and t-test over the seeds' means and the clusters they share; where no seed or
        cluster differs from another there is no error to divide by, and the clusters' signs are flipped as well). The
        verdict is that of the interval where the test agrees at 5 %.
    """
    interval, seeds, pooled = mean_interval(samples, n, seed), len(samples), _pooled(samples)
    clusters = len(np.unique(pooled[1].astype(str)))
    smallest = max(2.0 ** (1 - clusters), 1 / (1 + n)) if seeds == 1 else 2.0 ** (1 - seeds)
    if seeds == 1 or _without_error(interval):
        p_value, test = sign_flip_p(*pooled, n=n, seed=seed), f"sign-flip test over {clusters} prompt clusters"
    else:
        p_value = _t_test_p(interval, seeds)
        test = f"t-test over {seeds} seeds (a sign-flip test of them could not give p below {smallest:g})"
    outcome = outcome_of(interval.low, interval.high) if p_value <= 1 - LEVEL else "cannot tell"
    unit = "checkpoint, 1 seed" if seeds == 1 else f"method, {seeds} seeds"
    verdict = Verdict(outcome, unit, detectable_difference(interval))
    return Difference(interval.mean, interval.low, interval.high, p_value, test, verdict, smallest)


def detectable_difference(interval: Interval) -> float:
    """Return the true difference that an interval so wide excludes 0 for with a power of 80 %."""
    spread = stats.t.ppf(1 - (1 - LEVEL) / 2, interval.freedom) + stats.t.ppf(POWER, interval.freedom)
    return float(spread) * interval.standard_error


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


def _sums(samples: Sequence[tuple[ArrayLike, ArrayLike]]) -> tuple[Floats, Floats, int]:
    """Sums and counts of the known values (units, seeds), and how many units there are."""
    values = [np.asarray(one, dtype=float) for one, _ in samples]
    known = [~np.isnan(one) for one in values]
    codes, units = units_of([np.asarray(names)[kept] for (_, names), kept in zip(samples, known, strict=True)])
    sums = [np.bincount(code, one[kept], units) for code, one, kept in zip(codes, values, known, strict=True)]
    counts = [np.bincount(code, minlength=units) for code in codes]
    return np.stack(sums, axis=1).astype(float), np.stack(counts, axis=1).astype(float), units


def _t_interval(mean: float, variance: float, freedom: float) -> Interval:
    error = math.sqrt(variance)
    half = float(stats.t.ppf(1 - (1 - LEVEL) / 2, freedom)) * error
    return Interval(mean, mean - half, mean + half, error, freedom)


def _without_error(interval: Interval) -> bool:
    """Whether no seed and no cluster differs from another but by rounding."""
    return interval.standard_error <= _ROUNDING * abs(interval.mean)


def _pooled(samples: Sequence[Sample]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Values and clusters of all seeds in one: a name is the same cluster in each."""
    values, clusters = zip(*samples, strict=True)
    return np.concatenate(values), np.concatenate(clusters)


def _t_test_p(interval: Interval, seeds: int) -> float:
    """With seeds - 1 degrees of freedom always: Satterthwaite's are too many far out, where Holm's test asks."""
    return float(2 * stats.t.sf(abs(interval.mean) / interval.standard_error, seeds - 1))
