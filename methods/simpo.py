"""Simple Preference Optimisation (Meng et al., 2024; arXiv:2405.14734).

Differs from the paper: all strict pairs of a ranking are trained on together, as for DPO; a LoRA adapter instead of all
weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from alignarena.core.contract import Lab, Policy, Schedule, Task
from alignarena.core.registry import method
from alignarena.methods.parts.experience import pairs_of
from alignarena.methods.parts.offline_losses import SimPOLoss


@method("simpo", paper="arXiv:2405.14734", family="offline")
@dataclass(frozen=True)
class SimPO:
    """DPO on the mean log-prob a token, with a margin to clear and without a reference model."""

    beta: float = 2.0  # scale of the mean log-prob
    gamma: float = 1.0  # margin between the scores; the authors advise to tune gamma / beta between 0 and 1
    schedule: Schedule = Schedule(learning_rate=1e-4, num_train_epochs=2, lr_scheduler_type="linear", warmup_ratio=0.1)

    def align(self, task: Task, lab: Lab) -> Policy:
        """Fit the policy to the preferences."""
        preferences = pairs_of(task.preferences["overall"])
        return lab.fit(task.policy, preferences, SimPOLoss(self.beta, self.gamma, soft=preferences.soft), self.schedule)
