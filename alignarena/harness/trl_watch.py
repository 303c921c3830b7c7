"""What goes on while TRL trains: the ledger, the curves, the budget, and scores from the lab's own reward model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from datasets import Dataset
from transformers import TrainerCallback

from alignarena.core.contract import Rows
from alignarena.core.degenerate import in_samples
from alignarena.core.errors import RunFailed
from alignarena.core.records import OF_FITS, OF_SAMPLING
from alignarena.harness.progress import Stage
from alignarena.harness.sampler import Sample, sampled_row

# The step and our own count of tokens say the first two; the others online DPO sums over padding as well.
_NOT_KEPT = ("epoch", "num_tokens", "objective/kl", "objective/entropy", "objective/non_score_reward",
             "objective/rlhf_reward")  # fmt: skip


class Watch(TrainerCallback):  # type: ignore[misc]
    """Counts and logs each step, ends training with the budget, and breaks off on a loss that is not finite."""

    def __init__(self, lab: Any, name: str, stage: Stage, online: bool) -> None:
        self.lab, self.name, self.stage, self.online = lab, name, stage, online
        self.log: list[dict[str, float]] = []
        self.stopped = "finished"
        self.steps_an_update = 1  # of one that samples: after so many it samples anew
        self._tokens = 0

    def read(self, tokens: int, trained: bool) -> None:
        """Count the tokens of a forward pass."""
        backbone = self.lab.backbone
        each = backbone.weights.flops_per_token if trained else 2.0
        kind = "trained_tokens" if trained else "scored_tokens"
        self.lab.count(**{kind: tokens, "flops": each * backbone.parameters * tokens})
        self._tokens += tokens if trained else 0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Count a step; stop where the budget does."""
        self.lab.count(optimizer_steps=1)
        self.stage.advance(1 / state.max_steps, self._tokens)
        done = self.online and state.global_step % max(1, self.steps_an_update) == 0
        if self.lab.reached(OF_SAMPLING if done else OF_FITS) and state.global_step < state.max_steps:
            self.stopped, control.should_training_stop = "budget", True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
        """Keep the numbers of a step.

        Raises:
            RunFailed: The loss is not finite.
        """
        if "loss" not in logs:
            return
        step = state.global_step - 1
        if not math.isfinite(logs["loss"]):
            raise RunFailed(f"{self.name}: the loss is {logs['loss']} at step {step}; lower the learning_rate")
        kept = {name: float(value) for name, value in logs.items() if name not in _NOT_KEPT}
        self.log.append({"phase": 0, "step": step, **kept, "tokens": self._tokens})
        self._tokens = 0


class Rewards:
    """TRL's reward function: the score of a scorer in the lab, less a penalty for completions that do not finish."""

    __name__ = "score"

    def __init__(self, lab: Any, rows: Sequence[dict[str, Any]], scorer: Any, missing_eos_penalty: float) -> None:
        self.lab, self.rows, self.scorer, self.missing_eos_penalty = lab, rows, scorer, missing_eos_penalty
        tokens = lab.backbone.tokens
        self.prompts = [tokens.prompt_of(row) for row in rows]

    def __call__(self, prompts: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        """Return a reward for each completion; prompts are the numbers of rows."""
        numbers = list(map(int, prompts))
        drawn = self._sampled(numbers, completion_ids)
        self.lab.meet(in_samples(drawn))
        new = sum(map(len, drawn["completion_ids"]))
        backbone = self.lab.backbone
        self.lab.count(prompts=len(set(numbers)), completions=len(drawn), sampled_tokens=new,
                       flops=2.0 * backbone.parameters * new)  # fmt: skip
        scored = self.lab.score(drawn, self.scorer)
        return [
            score - self.missing_eos_penalty * (reason != "stop")
            for score, reason in zip(scored["score"], scored["finish_reason"], strict=True)
        ]

    def _sampled(self, numbers: list[int], completion_ids: list[list[int]]) -> Rows:
        seen: dict[int, int] = {}
        rows = []
        for number, ids in zip(numbers, completion_ids, strict=True):
            seen[number] = index = seen.get(number, -1) + 1
            drawn = Sample(self._cut(ids), ())
            rows.append(sampled_row(self.rows[number], self.prompts[number], index, drawn, self.lab.backbone))
        return Dataset.from_list(rows)

    def _cut(self, ids: list[int]) -> tuple[int, ...]:
        eos = self.lab.backbone.tokens.eos_id
        return tuple(ids[: ids.index(eos) + 1] if eos in ids else ids)
