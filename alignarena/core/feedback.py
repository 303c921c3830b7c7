"""Feedback made of other feedback, and what asking for it costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alignarena.core.contract import Judge, Labeler, Rows, Scorer

UNSAFE_BELOW = math.log(0.15 / 0.85)  # the log-odds of Llama 2's threshold: sigmoid(s) < .15 where s < this
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


def centred(scorer: Scorer, scores: Sequence[float]) -> Standardised:
    """Shift a scorer so that reference samples have mean 0; its unit stays: differences are log-odds of a preference.

    A loss of comparisons leaves a reward model's zero free. With this one, sigmoid(score) is about the probability that
    a completion is preferred to a typical reference sample.
    """
    return Standardised(scorer, float(np.mean(scores)), 1.0)


@dataclass(frozen=True)
class Piecewise:
    """Llama 2's reward: harmlessness where it is at stake, else helpfulness (arXiv:2307.09288, section 3.2.3).

    A completion gets the score of ``harmless`` if its prompt asks for harm (``axis`` harmless or ``kind`` red_team) or
    if sigmoid of that score is below .15, else the score of ``helpful``. The paper states it on sigmoids and takes the
    logit of the result. Here scores are raw throughout, which is the same and cannot saturate.
    """

    helpful: Scorer
    harmless: Scorer

    @property
    def lineage(self) -> frozenset[str]:
        """Those of both."""
        return self.helpful.lineage | self.harmless.lineage

    def score(self, rows: Rows, lab: Any) -> list[float]:
        """Return one score a row."""
        both = zip(self.helpful.score(rows, lab), self.harmless.score(rows, lab), about_harm(rows), strict=True)
        return [harmless if asked or harmless < UNSAFE_BELOW else helpful for helpful, harmless, asked in both]


def about_harm(rows: Rows) -> list[bool]:
    """Tell of each row whether its prompt asks for harm; a row that says neither axis nor kind does not."""
    return [row.get("axis") == "harmless" or row.get("kind") == "red_team" for row in rows.to_list()]


def cost_of_preferring(rows: Rows, judge: Judge) -> dict[str, float]:
    """Return what a judge is paid: labeler calls if it is a labeler, else log2(K!) labels for each ranking of K."""
    sizes = [len(completions) for completions in rows["completions"][:]]
    if isinstance(judge, Labeler):
        return {"labeler_calls": sum(map(judge.calls, sizes))}
    return {"labels": sum(math.log2(math.factorial(size)) for size in sizes)}


def cost_of_scoring(rows: Rows, scorer: Scorer) -> dict[str, float]:
    """Return what a scorer is paid: labeler calls if it is a labeler, else nothing but the work it does."""
    inner = scorer.scorer if isinstance(scorer, Standardised) else scorer
    return {"labeler_calls": len(rows) * inner.calls(1)} if isinstance(inner, Labeler) else {}
