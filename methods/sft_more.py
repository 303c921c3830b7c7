"""More supervised fine-tuning on the demonstrations: a control of what further training alone does.

Differs from the paper: a control, in no paper. It trains on as many tokens as `trained_tokens` says, to the nearest
whole epoch, so that a gain of another method is not a gain of training longer.
"""

from __future__ import annotations

from dataclasses import dataclass

from alignarena.core.contract import Lab, Policy, Schedule, Task
from alignarena.core.registry import method
from alignarena.methods.parts.experience import Fixed
from alignarena.methods.parts.imitation import for_tokens
from alignarena.methods.parts.losses import SFTLoss


@method("sft_more", paper="baseline", family="baseline")
@dataclass(frozen=True)
class SFTMore:
    """The same demonstrations, again and again: no feedback, no sampling."""

    trained_tokens: int = 60_000  # through forward and backward, beside those of SFT; it sets the number of epochs
    schedule: Schedule = Schedule(learning_rate=1e-4, lr_scheduler_type="linear", warmup_ratio=0.05)

    def align(self, task: Task, lab: Lab) -> Policy:
        """Go on with supervised fine-tuning where the shared start ended."""
        loss = SFTLoss()
        schedule = for_tokens(self.schedule, self.trained_tokens, task.demonstrations, loss, lab)
        return lab.fit(task.policy, Fixed(task.demonstrations), loss, schedule)
