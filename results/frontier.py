"""Reward against KL: the upper envelope of what was reached, the area under it, the reward at a given KL.

Between two points the reward is taken as linear in sqrt(KL), as it is near the reference model. Nothing is said beyond
the points reached. KL is no common currency between best-of-n and trained policies (Gao et al., 2022).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from alignarena.results.resampling import Floats, resampled, units_of
from alignarena.results.stats import UNKNOWN, Interval, percentile_interval

RESAMPLES = 2000
KLS = (1.0, 2.0, 5.0, 10.0)  # nats, at which rewards are read


@dataclass(frozen=True)
class Envelope:
    """Points that no other beats at the same KL or less, and the farthest reached: KL rising (P,), reward (P,)."""

    kl: Floats
    reward: Floats

    def reward_at(self, kl: float) -> float:
        """Return the reward at a KL in nats; NaN outside of what was reached."""
        if not len(self.kl) or not self.kl[0] <= kl <= self.kl[-1]:
            return math.nan
        return float(np.interp(math.sqrt(kl), np.sqrt(self.kl), self.reward))

    def area(self, kl_max: float) -> float:
        """Return the area under the envelope from 0 to a KL that all rivals reached, in reward x nats.

        NaN where the envelope does not reach from 0 to there.
        """
        if math.isnan(self.reward_at(kl_max)) or self.kl[0] > 0:
            return math.nan
        inner = self.kl < kl_max
        roots = np.append(np.sqrt(self.kl[inner]), math.sqrt(kl_max))
        rewards = np.append(self.reward[inner], self.reward_at(kl_max))
        width = np.diff(roots)
        slope = np.diff(rewards) / np.where(width > 0, width, 1.0)
        start = rewards[:-1] - slope * roots[:-1]  # reward = start + slope root, and d KL = 2 root d root
        parts = start * np.diff(roots**2) + slope * np.diff(roots**3) * 2 / 3
        return float(parts.sum())


def envelope(kl: ArrayLike, reward: ArrayLike) -> Envelope:
    """Return the upper envelope of points (P,); a KL estimated below 0 counts as 0, and points with NaN are left out.

    Give the reference model as the point of KL 0: every policy starts there.
    """
    kls, rewards = np.maximum(np.asarray(kl, dtype=float), 0.0), np.asarray(reward, dtype=float)
    known = ~(np.isnan(kls) | np.isnan(rewards))
    kls, rewards = kls[known], rewards[known]
    order = np.lexsort((-rewards, kls))
    kls, rewards = kls[order], rewards[order]
    best = np.concatenate([[-math.inf], np.maximum.accumulate(rewards)[:-1]]) if len(rewards) else rewards
    kept = rewards > best
    if len(kls) and not kept[-1]:  # who went too far keeps what was reached on the way
        return Envelope(np.append(kls[kept], kls[-1]), np.append(rewards[kept], rewards.max()))
    return Envelope(kls[kept], rewards[kept])


def envelope_interval(
    kl: ArrayLike,
    reward: ArrayLike,
    clusters: ArrayLike,
    summary: Callable[[Envelope], float],
    n: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Percentile interval of a number read off the envelope, the same resampled clusters for all its points.

    Args:
        kl: Of each point and prompt (P, N).
        reward: Likewise (P, N).
        clusters: The prompts' clusters (N,).
        summary: Such as ``lambda one: one.reward_at(5)`` or ``lambda one: one.area(kl_max)``.
        n: Resamples.
        seed: Of the resampling.

    Returns:
        NaN limits where fewer than nine in ten resamples reach as far as the summary asks.
    """
    kls, rewards = np.asarray(kl, dtype=float), np.asarray(reward, dtype=float)
    estimate = summary(envelope(kls.mean(axis=1), rewards.mean(axis=1)))
    [codes], units = units_of([clusters])
    if units < 2 or math.isnan(estimate):
        return Interval(estimate, math.nan, math.nan, math.nan) if not math.isnan(estimate) else UNKNOWN
    points = len(kls)
    totals = np.zeros((units, 2 * points + 1))
    np.add.at(totals, codes, np.concatenate([kls, rewards, np.ones((1, kls.shape[1]))]).T)
    sums = resampled(totals, n, seed)
    means = sums[:, :-1] / sums[:, -1:]
    found = np.array([summary(envelope(one[:points], one[points:])) for one in means])
    found = found[~np.isnan(found)]
    if len(found) < 0.9 * n:
        return Interval(estimate, math.nan, math.nan, math.nan)
    return percentile_interval(estimate, found, units)


def shared_kl_max(envelopes: Sequence[Envelope]) -> float:
    """Return the largest KL that every one of them reached; areas are compared up to there."""
    return min((float(one.kl[-1]) if len(one.kl) else math.nan for one in envelopes), default=math.nan)
