"""Direct Preference Optimisation (Rafailov et al., 2023; arXiv:2305.18290).

Differs from the paper: all strict pairs of a ranking are trained on together, as InstructGPT does for its reward model,
so that DPO gets the same annotator information; AdamW on a LoRA adapter instead of RMSprop on all weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from alignarena.core.contract import Lab, Policy, Schedule, Task
from alignarena.core.errors import BadInput
from alignarena.core.registry import method
from alignarena.methods.parts.experience import pairs_of
from alignarena.methods.parts.losses import DPOLoss


@method("dpo", paper="arXiv:2305.18290", family="offline")
@dataclass(frozen=True)
class DPO:
    """Preferences straight into the policy: no reward model, no sampling."""

    beta: float = 0.1  # larger keeps the policy closer to the reference model
    label_smoothing: float = 0.0  # cDPO: the share of preferences taken to be flipped
    reference_free: bool = False  # without a reference model, which nothing then holds the policy to
    schedule: Schedule = Schedule(learning_rate=1e-4, num_train_epochs=2, lr_scheduler_type="linear", warmup_ratio=0.1)

    def __post_init__(self) -> None:
        """Check the share of flipped labels.

        Raises:
            BadInput: It is negative, or one half and more: the labels then say nothing, or the opposite.
        """
        if not 0 <= self.label_smoothing < 0.5:
            raise BadInput(f"dpo: label_smoothing must be at least 0 and below 0.5, got {self.label_smoothing}")

    def align(self, task: Task, lab: Lab) -> Policy:
        """Fit the policy to the preferences; the SFT policy is the reference model."""
        preferences = pairs_of(task.preferences["overall"])
        loss = DPOLoss(self.beta, self.label_smoothing, self.reference_free, soft=preferences.soft)
        return lab.fit(task.policy, preferences, loss, self.schedule)
