"""Kahneman-Tversky Optimisation (Ethayarajh et al., 2024; arXiv:2402.01306).

Differs from the paper: the completions come from preferences, the chosen one of each pair desirable and the rejected
one undesirable; the reference point is estimated for each prompt from several completions of other prompts, not once
for a micro-batch from one each, as micro-batches are a matter of memory here; AdamW on a LoRA adapter instead of
RMSprop on all weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from alignarena.core.contract import Lab, Policy, Schedule, Task
from alignarena.core.errors import BadInput
from alignarena.core.registry import method
from alignarena.methods.parts.experience import pairs_of
from alignarena.methods.parts.offline_losses import KTOLoss
from alignarena.methods.parts.unpaired import Unpaired


@method("kto", paper="arXiv:2402.01306", family="offline")
@dataclass(frozen=True)
class KTO:
    """Each completion is good or bad by itself: its log-ratio should be above, or below, that of unrelated text."""

    beta: float = 0.1  # larger keeps the policy closer to the reference model
    desirable_weight: float = 1.0  # the paper's lambda_D
    undesirable_weight: float = 1.0  # lambda_U
    mismatched: int = 4  # completions of other prompts that a prompt's reference point is estimated from
    schedule: Schedule = Schedule(learning_rate=1e-4, num_train_epochs=2, lr_scheduler_type="linear", warmup_ratio=0.1)

    def __post_init__(self) -> None:
        """Check the reference point.

        Raises:
            BadInput: It would be estimated from no completion.
        """
        if self.mismatched < 1:
            raise BadInput(f"kto: mismatched must be at least 1, got {self.mismatched}")

    def align(self, task: Task, lab: Lab) -> Policy:
        """Fit the policy to the completions one by one; the SFT policy is the reference model."""
        completions = Unpaired(pairs_of(task.preferences["overall"]), self.mismatched)
        loss = KTOLoss(self.beta, self.desirable_weight, self.undesirable_weight)
        return lab.fit(task.policy, completions, loss, self.schedule)
