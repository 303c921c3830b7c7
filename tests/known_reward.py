"""A known scorer where a method would fit a reward model, and a watch on what each fit of a method is given."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import toy_task

from alignarena.core.contract import Rows, Schedule, Scorer
from alignarena.core.seeds import generator
from alignarena.methods.parts.reward_modelling import RewardModelling

PLAIN = toy_task.Favours()


@dataclass(frozen=True)
class Untied:
    """Favours the same words; equal texts of different draws get scores that differ a little."""

    lineage: frozenset[str] = frozenset({"favours"})

    def score(self, rows: Rows, lab: Any) -> list[float]:
        more = [generator(0, row["completion"], row["sample"]).random() for row in rows.to_list()]
        return [one + 1e-3 * other for one, other in zip(PLAIN.score(rows, lab), more, strict=True)]


@dataclass(frozen=True)
class Known(RewardModelling):
    """Gives the scorer; fits nothing."""

    scorer: Scorer = field(default_factory=lambda: PLAIN)

    def fit(self, task: Any, lab: Any) -> Any:
        return self.scorer


def trained_on(cell: Any, method: Any) -> tuple[Any, list[list[dict[str, Any]]], list[Schedule]]:
    """Run a method; return its policy, and the rows and the schedule of each fit."""
    lab, task = cell
    seen: list[Any] = []
    schedules: list[Schedule] = []
    fit = lab.fit

    def noting(policy: Any, experience: Any, loss: Any, schedule: Any) -> Any:
        seen.append(experience.data.to_list())
        schedules.append(schedule)
        return fit(policy, experience, loss, schedule)

    lab.fit = noting
    return method.align(task, lab), seen, schedules


def drawn(cell: Any, n: int, stream: str = "round 0") -> list[dict[str, Any]]:
    """Return a draw of the SFT policy, but for completions that do not end."""
    lab, task = cell
    rows = lab.sample(task.policy, task.prompts, n, stream=stream).to_list()
    return [row for row in rows if row["finish_reason"] == "stop"]
