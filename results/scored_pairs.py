"""Pairs of the aligned policies' answers whose gold is known: how well each scorer orders what training made.

A reward model learns from SFT samples and is then asked about what became of them, so that is where it is tested. A
pair is two methods' answers to one prompt, of one sample and seed, of which gold prefers one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from alignarena.results.resampling import Floats
from alignarena.results.reward_quality import error_correlation, right
from alignarena.results.stats import Interval, bootstrap_interval

TRAINING, HELD_OUT, AI_JUDGE = "proxy_reward", "heldout_reward", "ai_judge"
SCORERS = (TRAINING, HELD_OUT, AI_JUDGE, "length")
UNALIGNED = ("base", "sft")
_KEYS = ["seed", "prompt_id", "sample", "cluster"]


@dataclass(frozen=True)
class ScoredPairs:
    """What each scorer says of N pairs: the score of the better answer less that of the other.

    Attributes:
        clusters: Of the prompts (N,).
        gold: How much better by gold, above 0 (N,).
        differences: By scorer (N,); NaN where it does not know both.
    """

    clusters: NDArray[np.object_]
    gold: Floats
    differences: dict[str, Floats] = field(default_factory=dict)

    def known(self, *scorers: str) -> NDArray[np.bool_]:
        """Return of which pairs all of these scorers know both answers (N,)."""
        unknown = np.full(len(self.gold), np.nan)
        return np.asarray(np.all([~np.isnan(self.differences.get(name, unknown)) for name in scorers], axis=0))

    def accuracy(self, scorer: str) -> Interval:
        """Return the share of pairs that a scorer orders as gold does, ties half; clusters are resampled."""
        known = self.known(scorer)
        if not known.any():
            return bootstrap_interval([], [])
        return bootstrap_interval(right(self.differences[scorer][known]), self.clusters[known])

    def shared_errors(self, scorer: str, other: str = TRAINING) -> float:
        """Return the correlation of two scorers' errors on the pairs that both know; NaN where there is none."""
        known = self.known(scorer, other)
        if not known.any():
            return float("nan")
        return error_correlation(self.differences[scorer][known], self.differences[other][known])


def scored_pairs(scores: pd.DataFrame, scorers: Sequence[str] = SCORERS) -> ScoredPairs:
    """Pair all methods' answers.

    Args:
        scores: Tidy scores of the aligned methods of one suite: ``method seed prompt_id sample cluster metric value``.
        scorers: Metrics that are scores, larger for the better answer.
    """
    tables = {name: scores[scores["metric"] == name].pivot(index=_KEYS, columns="method", values="value")
              for name in ("gold", *scorers)}  # fmt: skip
    gold = tables.pop("gold")
    first, second = np.triu_indices(len(gold.columns), 1)
    gap = _gap(gold, gold, first, second)
    kept = (gap != 0) & ~np.isnan(gap)
    clusters = np.broadcast_to(gold.index.get_level_values("cluster").to_numpy(dtype=object)[:, None], gap.shape)
    differences = {name: (np.sign(gap) * _gap(table, gold, first, second))[kept] for name, table in tables.items()}
    known = {name: values for name, values in differences.items() if not np.isnan(values).all()}
    return ScoredPairs(clusters[kept], np.abs(gap[kept]), known)


def _gap(table: pd.DataFrame, like: pd.DataFrame, first: NDArray[np.int64], second: NDArray[np.int64]) -> Floats:
    """Return the value of each pair's first method less its second's (rows, pairs of methods)."""
    values = table.reindex(index=like.index, columns=like.columns).to_numpy(dtype=float)
    return np.asarray(values[:, first] - values[:, second])
