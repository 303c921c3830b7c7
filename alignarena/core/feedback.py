"""Feedback made of other feedback, and what asking for it costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alignarena.core.contract import Judge, Labeler, Rows, Scorer

_LEAST_SPREAD = 1e-6  # below it, dividing would only magnify rounding


@dataclass(frozen=True)
class Standardised:
    """A scorer shifted and scaled so that the samples it was measured on have mean 0 and standard deviation 1.

    Only this fixes the scale of a reward model, which its loss leaves free, and so makes one KL coefficient mean the
    same for different reward models (Ziegler et al. 2019, section 2.2).
    """

    scorer: Scorer
    mean: float
    std: float

    @property
    def lineage(self) -> frozenset[str]:
        """That of the scorer inside."""
        return self.scorer.lineage

    def score(self, rows: Rows, lab: Any) -> list[float]:
        """Return one score a row."""
        return [(score - self.mean) / self.std for score in self.scorer.score(rows, lab)]


def standardised(scorer: Scorer, scores: Sequence[float]) -> Standardised:
    """Standardise a scorer by its scores of reference samples."""
    spread = float(np.std(scores))
    return Standardised(scorer, float(np.mean(scores)), spread if spread > _LEAST_SPREAD else 1.0)


def cost_of_preferring(rows: Rows, judge: Judge) -> dict[str, float]:
    """Return what a judge is paid: labeler calls if it is a labeler, else log2(K!) labels for each ranking of K."""
    sizes = [len(completions) for completions in rows["completions"]]
    if isinstance(judge, Labeler):
        return {"labeler_calls": sum(map(judge.calls, sizes))}
    return {"labels": sum(math.log2(math.factorial(size)) for size in sizes)}


def cost_of_scoring(rows: Rows, scorer: Scorer) -> dict[str, float]:
    """Return what a scorer is paid: labeler calls if it is a labeler, else nothing but the work it does."""
    inner = scorer.scorer if isinstance(scorer, Standardised) else scorer
    return {"labeler_calls": len(rows) * inner.calls(1)} if isinstance(inner, Labeler) else {}
