"""How probable a policy finds given texts, as a scorer: prompts may then be longer than those of the comparison."""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum
from typing import Any

from datasets import Dataset

from alignarena.core.contract import Lab, Rows, TrainablePolicy


@dataclass(frozen=True)
class Likelihood:
    """Scores a completion by its log-prob in nats; that it ends there is not counted."""

    policy: TrainablePolicy
    lineage: frozenset[str] = frozenset()

    def score(self, rows: Rows, lab: Lab) -> list[float]:
        """Return one log-prob a row."""
        return [fsum(logps[:-1]) for logps in lab.logps(self.policy, rows)["logps"]]


def of_choices(lab: Lab, policy: Any, questions: list[tuple[str, list[str]]]) -> list[list[float]] | None:
    """Return the log-probs (nats) of the choices of each question; ``None`` of a policy without log-probs."""
    if not hasattr(policy, "logps"):
        return None
    rows = [{"prompt_id": str(place), "prompt": question, "completion": choice}
            for place, (question, choices) in enumerate(questions) for choice in choices]  # fmt: skip
    scores = iter(lab.score(Dataset.from_list(rows), Likelihood(policy))["score"][:])
    return [[next(scores) for _ in choices] for _, choices in questions]
