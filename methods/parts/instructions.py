"""Policies that are told something before every prompt: a grade of answer to give, or what is wanted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from datasets import Dataset

from alignarena.core.contract import Lab, Rows, Sampling, TrainablePolicy
from alignarena.core.digest import digest


def instructed(rows: Rows, instruction: str) -> Rows:
    """Put an instruction before every prompt; of a conversation, before its last user turn."""
    told = [{**{key: value for key, value in row.items() if key != "prompt_ids"},
             "prompt": _told(row["prompt"], instruction)} for row in rows.to_list()]  # fmt: skip
    return Dataset.from_list(told)


def _told(prompt: Any, instruction: str) -> Any:
    if isinstance(prompt, str):
        return f"{instruction} {prompt}"
    return [*prompt[:-1], {**prompt[-1], "content": f"{instruction} {prompt[-1]['content']}"}]


@dataclass(frozen=True)
class Instructed:
    """A policy under an instruction, which training and evaluation take from one place.

    Whoever compares its completions sees the plain prompt, so a KL to the reference model is that of
    ``policy(. | instruction, prompt)`` to ``reference(. | prompt)``.
    """

    policy: TrainablePolicy
    instruction: str

    @property
    def digest(self) -> str:
        """Name of its parts."""
        return digest("instructed", self.policy, self.instruction)

    def complete(self, lab: Lab, rows: Rows, n: int, *, stream: str, sampling: Sampling) -> Rows:
        """Sample the policy under the instruction; rows come back with the prompts they had."""
        drawn = lab.sample(self.policy, instructed(rows, self.instruction), n, stream=stream, sampling=sampling)
        return _with_plain_prompts(drawn, rows)

    def logps(self, lab: Lab, rows: Rows) -> Rows:
        """Return the rows with log-probs of their completions under the instruction."""
        return _with_plain_prompts(lab.logps(self.policy, instructed(rows, self.instruction)), rows)


def _with_plain_prompts(rows: Rows, plain: Rows) -> Rows:
    prompts = dict(zip(plain["prompt_id"][:], plain["prompt"][:], strict=True))
    return Dataset.from_list(
        [{**{key: value for key, value in row.items() if key != "prompt_ids"}, "prompt": prompts[row["prompt_id"]]}
         for row in rows.to_list()]
    )  # fmt: skip
