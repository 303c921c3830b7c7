"""An AI labeler for the toy task: a program that likes favoured words, so that what it teaches can be measured."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import exp
from typing import Any

from datasets import Dataset
from toy_task import Favours, share

from alignarena.core.contract import Rows, Task
from alignarena.evaluators.verdicts import preference


@dataclass(frozen=True)
class ToyLabeler:
    """Prefers by sigmoid(certainty x difference of shares), scores by the share on [-1, 1]."""

    certainty: float = 8.0
    writer: Any = None
    oracle: Any = None
    lineage: frozenset[str] = frozenset({"toy labeler"})

    def calls(self, completions: int) -> int:
        return completions

    def score(self, rows: Rows, lab: Any) -> list[float]:
        return [2 * one - 1 for one in Favours().score(rows, lab)]

    def prefer(self, rows: Rows, lab: Any) -> Rows:
        return Dataset.from_list([{**row, **preference(self._probability(row["completions"]))} for row in rows])

    def _probability(self, texts: list[str]) -> float:
        return 1 / (1 + exp(-self.certainty * (share(texts[0]) - share(texts[1]))))


def with_labeler(task: Task, labeler: Any = None) -> Task:
    """Return a task whose labeler is another."""
    return replace(task, labeler=labeler or ToyLabeler())
