"""Identity Preference Optimisation (Azar et al., 2023; arXiv:2310.12036).

Differs from the paper: all strict pairs of a ranking are trained on together, so that it gets the same annotator
information as a reward model; log-probs are summed over tokens, as the paper writes them (TRL divides by length, which
its authors say they did); AdamW on a LoRA adapter.
"""

from __future__ import annotations

from dataclasses import dataclass

from alignarena.core.contract import Lab, Policy, Schedule, Task
from alignarena.core.errors import BadInput
from alignarena.core.registry import method
from alignarena.methods.parts.experience import pairs_of
from alignarena.methods.parts.losses import IPOLoss


@method("ipo", paper="arXiv:2310.12036", family="offline")
@dataclass(frozen=True)
class IPO:
    """DPO with a finite aim: the log-ratio of a pair is pulled to 1 / (2 beta) rather than to infinity."""

    beta: float = 0.1  # larger keeps the policy closer to the reference model
    schedule: Schedule = Schedule(learning_rate=1e-4, num_train_epochs=2, lr_scheduler_type="linear", warmup_ratio=0.1)

    def __post_init__(self) -> None:
        """Check the aim.

        Raises:
            BadInput: beta is not positive: the aim is 1 / (2 beta).
        """
        if self.beta <= 0:
            raise BadInput(f"ipo: beta must be above 0, got {self.beta}")

    def align(self, task: Task, lab: Lab) -> Policy:
        """Fit the policy to the preferences; the SFT policy is the reference model."""
        preferences = pairs_of(task.preferences["overall"])
        return lab.fit(task.policy, preferences, IPOLoss(self.beta, soft=preferences.soft), self.schedule)
