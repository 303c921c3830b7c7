"""Rollouts mixed with demonstrations: what a policy is rewarded for beside what it should not forget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from datasets import Dataset

from alignarena.core.contract import Lab, Policy, Rows, Scorer, TrainablePolicy
from alignarena.methods.parts.experience import Rollouts, in_turn


@dataclass(frozen=True)
class WithDemonstrations:
    """Rollouts beside demonstrations, for a loss that imitates these as well.

    A row gets ``demonstration`` and ``demonstration_prompt``. One demonstration serves all completions that a phase
    draws of a prompt: they share a batch, in which it is then computed once.
    """

    rollouts: Rollouts
    demonstrations: Rows

    @property
    def phases(self) -> int:
        """Those of the rollouts."""
        return self.rollouts.phases

    @property
    def value_start(self) -> Scorer | TrainablePolicy | None:
        """That of the rollouts."""
        return self.rollouts.value_start

    def rows(self, phase: int, policy: Policy, lab: Lab) -> Rows:
        """Sample the prompts of a phase, and take the next demonstrations."""
        sampled = self.rollouts.rows(phase, policy, lab).to_list()
        drawn = list(dict.fromkeys(row["prompt_id"] for row in sampled))
        shown = in_turn(self.demonstrations, phase, self.rollouts.prompts_per_phase, lab, "demonstration order")
        beside = dict(zip(drawn, map(_beside, shown.to_list()), strict=False))  # a prompt may come twice in a phase
        return Dataset.from_list([{**row, **beside[row["prompt_id"]]} for row in sampled])


def _beside(demonstration: dict[str, Any]) -> dict[str, Any]:
    named = {"prompt": "demonstration_prompt", "completion": "demonstration", "completion_ids": "demonstration_ids"}
    return {name: demonstration[of] for of, name in named.items() if of in demonstration}
