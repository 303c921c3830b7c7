"""Preferred fine-tuning, Preferred-FT: imitate the chosen completions (a baseline of Rafailov et al., 2023).

Differs from the paper: all strict pairs of a ranking are used, as for DPO: a completion counts as often as it was
chosen; it trains on as many tokens as `trained_tokens` says, to the nearest whole epoch (as `sft_more` does); soft
labels, where rows have them, give the expected loss of the preferred completion; AdamW on a LoRA adapter.
"""

from __future__ import annotations

from dataclasses import dataclass

from alignarena.core.contract import Lab, Policy, Schedule, Task
from alignarena.core.registry import method
from alignarena.methods.parts.experience import Fixed, Stream, pairs_of
from alignarena.methods.parts.filters import told_apart
from alignarena.methods.parts.imitation import ChosenLoss, PreferredLoss, for_tokens


@method("preferred_ft", paper="arXiv:2305.18290", family="offline")
@dataclass(frozen=True)
class PreferredFT:
    """The labels of DPO without its contrast: what was rejected is not learnt from."""

    trained_tokens: int = 60_000  # through forward and backward; sets the number of epochs, not of a stream
    schedule: Schedule = Schedule(learning_rate=1e-4, lr_scheduler_type="linear", warmup_ratio=0.1)

    def align(self, task: Task, lab: Lab) -> Policy:
        """Fine-tune on the chosen completion of every pair; identical completions state no preference."""
        preferences = pairs_of(task.preferences["overall"])
        if isinstance(preferences, Stream):
            return lab.fit(task.policy, preferences, PreferredLoss(soft=True), self.schedule)
        rows, loss = told_apart(preferences.data), ChosenLoss()
        schedule = for_tokens(self.schedule, self.trained_tokens, rows, loss, lab)
        return lab.fit(task.policy, Fixed(rows), loss, schedule)
