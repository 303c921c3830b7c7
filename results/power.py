"""How many prompts a question needs, before a run; what a finished run could have found stands in its verdicts."""

from __future__ import annotations

import math

from scipy import stats

from alignarena.results.stats import LEVEL, POWER


def prompts_needed(
    win_rate: float,
    *,
    ties: float = 0.0,
    comparisons: int = 1,
    per_cluster: int = 1,
    correlation: float = 0.0,
    power: float = POWER,
    alpha: float = 1 - LEVEL,
) -> int:
    """Return the judgments that tell a win rate from one half: n = (z_alpha + z_power)^2 var / (win rate - 1/2)^2.

    Args:
        win_rate: The true one, ties half.
        ties: Share of ties, which lessen the variance: var = win rate (1 - win rate) - ties / 4.
        comparisons: Questions asked side by side; alpha is divided by their number (Bonferroni; Holm needs no more).
        per_cluster: Judgments of one topic.
        correlation: Between two judgments of one topic: n grows by 1 + (per_cluster - 1) correlation.
        power: Chance of finding the difference.
        alpha: Two-sided.

    Raises:
        ValueError: No such win rate, or so many ties that it cannot be.
    """
    if not 0 < win_rate < 1 or win_rate == 0.5 or not 0 <= ties <= 2 * min(win_rate, 1 - win_rate):
        raise ValueError(f"a win rate of {win_rate:g} with {ties:g} ties cannot be told from 0.5, or cannot be")
    variance = win_rate * (1 - win_rate) - ties / 4
    return _rounded(variance / (win_rate - 0.5) ** 2, comparisons, per_cluster, correlation, power, alpha)


def prompts_for_difference(
    difference: float,
    deviation: float,
    *,
    comparisons: int = 1,
    per_cluster: int = 1,
    correlation: float = 0.0,
    power: float = POWER,
    alpha: float = 1 - LEVEL,
) -> int:
    """Return the prompts that find a paired difference whose standard deviation over prompts is known.

    Args:
        difference: The true mean difference, not 0.
        deviation: Standard deviation of one prompt's difference, from a pilot run.
        comparisons: As in :func:`prompts_needed`, and the others too.
        per_cluster: Prompts of one topic.
        correlation: Between two prompts of one topic.
        power: Chance of finding the difference.
        alpha: Two-sided.
    """
    return _rounded((deviation / difference) ** 2, comparisons, per_cluster, correlation, power, alpha)


def seeds_needed(difference: float, deviation: float, *, comparisons: int = 1, power: float = POWER) -> int:
    """Return the seeds that find a difference between methods, by the t-test over seeds' means.

    Args:
        difference: The true mean difference, not 0.
        deviation: Standard deviation of the difference between seeds.
        comparisons: As in :func:`prompts_needed`.
        power: Chance of finding it.
    """
    alpha, seeds = (1 - LEVEL) / comparisons, 2
    while _power(abs(difference) / deviation, seeds, alpha) < power:
        seeds += 1
    return seeds


def _power(effect: float, seeds: int, alpha: float) -> float:
    """Chance that the two-sided t-test of so many seeds finds an effect in standard deviations."""
    shift, limit = effect * math.sqrt(seeds), stats.t.ppf(1 - alpha / 2, seeds - 1)
    return float(stats.nct.sf(limit, seeds - 1, shift) + stats.nct.cdf(-limit, seeds - 1, shift))


def _rounded(ratio: float, comparisons: int, per_cluster: int, correlation: float, power: float, alpha: float) -> int:
    reach = stats.norm.ppf(1 - alpha / comparisons / 2) + stats.norm.ppf(power)
    return math.ceil(float(reach) ** 2 * ratio * (1 + (per_cluster - 1) * correlation))
