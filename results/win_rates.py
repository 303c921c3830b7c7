"""Win rates with ties, hard and soft, and verdicts asked in both orders of presentation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats as scipy_stats

from alignarena.results.resampling import Floats
from alignarena.results.stats import Interval, Sample, mean_interval, sign_flip_p


@dataclass(frozen=True)
class WinRate:
    """How often one side beats the other.

    Attributes:
        soft: The mean probability of winning, (wins + ties / 2) / n where verdicts are 1, .5 and 0; with its interval.
        hard: The same with every probability rounded to a verdict first; with its interval.
        wins: Verdicts for it, rounded.
        ties: Verdicts for neither.
        losses: Verdicts against it.
        missing: Judgments without a verdict, which count nowhere else.
        p_value: Of a soft rate of 1/2, flipping the signs of whole clusters; NaN over several seeds.
        sign_test_p: Of as many wins as losses, ties left out, every judgment for itself: too small where judgments of
            a cluster go together.
    """

    soft: Interval
    hard: Interval
    wins: int
    ties: int
    losses: int
    missing: int
    p_value: float
    sign_test_p: float

    @property
    def net(self) -> float:
        """Wins minus losses over all, (-1, 1): 2 x hard - 1."""
        return 2 * self.hard.mean - 1


def win_rate(samples: Sequence[Sample]) -> WinRate:
    """Summarise judgments.

    Args:
        samples: The probability that it wins (or 1, .5, 0; NaN where the judge gave no verdict) and the prompt cluster
            of each judgment, one pair a seed.
    """
    rounded = [verdicts(values) for values, _ in samples]
    hard = [(values, clusters) for values, (_, clusters) in zip(rounded, samples, strict=True)]
    pooled = np.concatenate(rounded) if rounded else np.zeros(0)
    wins, losses = int((pooled == 1).sum()), int((pooled == 0).sum())
    ties, missing = int((pooled == 0.5).sum()), int(np.isnan(pooled).sum())
    sign_test = scipy_stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    p_value = math.nan
    if len(samples) == 1:
        p_value = sign_flip_p(np.asarray(samples[0][0], dtype=float) - 0.5, samples[0][1])
    return WinRate(mean_interval(samples), mean_interval(hard), wins, ties, losses, missing, p_value, float(sign_test))


def verdicts(probabilities: ArrayLike) -> Floats:
    """Round probabilities of winning (N,) to 1, .5 (a tie, exactly 1/2) or 0; NaN stays."""
    chances = np.asarray(probabilities, dtype=float)
    return np.where(np.isnan(chances), np.nan, (1 + np.sign(chances - 0.5)) / 2)


def both_orders(first: ArrayLike, swapped: ArrayLike) -> tuple[Floats, Floats]:
    """Combine what a judge said of pairs shown as (a, b) and as (b, a).

    Args:
        first: Probability that what stands first wins, a first (N,).
        swapped: The same, b first (N,).

    Returns:
        The probability that a wins without its place, (first + 1 - swapped) / 2; and the hard verdict 1 or 0 where
        both orders agree, else .5. Both are NaN where either order has no answer.
    """
    one, other = np.asarray(first, dtype=float), 1 - np.asarray(swapped, dtype=float)
    asked = verdicts(one), verdicts(other)
    agreed = np.where(asked[0] == asked[1], asked[0], 0.5)
    soft = (one + other) / 2
    return soft, np.where(np.isnan(soft), np.nan, agreed)
