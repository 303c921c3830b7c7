"""A policy whose log-probs are known, and a lab that only calls it."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from datasets import Dataset

from alignarena.core.contract import Rows


@dataclass(frozen=True)
class Knows:
    """A policy that finds shorter texts more probable: -1 a character, and -5 for the end."""

    digest: str = "knows"

    def logps(self, lab: Any, rows: Rows) -> Rows:
        return Dataset.from_dict(
            {**rows.to_dict(), "logps": [[-1.0] * len(text) + [-5.0] for text in rows["completion"]]}
        )


class Lab:
    """Calls policies and scorers, and does nothing else."""

    def logps(self, policy: Any, rows: Rows) -> Rows:
        return policy.logps(self, rows)  # type: ignore[no-any-return]

    def score(self, rows: Rows, scorer: Any) -> Rows:
        return Dataset.from_dict({**rows.to_dict(), "score": scorer.score(rows, self)})


def evidence(policy: Any) -> Any:
    return SimpleNamespace(lab=Lab(), policy=policy)
