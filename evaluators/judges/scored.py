"""A scorer as judge: a reward model, or the gold of a simulation. What scores higher is better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset

from alignarena.core.contract import Lab, Scorer
from alignarena.evaluators.judges.pairs import Answer, Pair, in_both_orders


@dataclass(frozen=True)
class ScorerJudge:
    """Compares by the scores of a scorer; equal ones are even."""

    name: str
    scorer: Scorer
    lab: Lab
    rows: Mapping[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)  # by prompt and completion: what a
    # scorer may read of a completion besides its text
    role: str = "diagnostic"  # it is the reward that methods trained on, or made that
    model: str = ""
    how: str = ""

    @property
    def lineage(self) -> frozenset[str]:
        """The scorer's."""
        return self.scorer.lineage

    def answers(self, pairs: Sequence[Pair]) -> list[Answer]:
        """Score every completion once."""
        texts = list(dict.fromkeys((pair.prompt, text) for pair in pairs for text in (pair.a, pair.b)))
        plain = [{"prompt_id": f"{i}", "prompt": prompt, "completion": text} for i, (prompt, text) in enumerate(texts)]
        rows = Dataset.from_list([{**one, **self.rows.get(key, {})} for key, one in zip(texts, plain, strict=True)])
        scores = dict(zip(texts, self.lab.score(rows, self.scorer)["score"], strict=True))
        return [_compared(scores[pair.prompt, pair.a], scores[pair.prompt, pair.b]) for pair in pairs]


def _compared(a: float, b: float) -> Answer:
    first = 0.5 if a == b else float(a > b)
    return in_both_orders(first, 1 - first)
