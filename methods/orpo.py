"""Odds Ratio Preference Optimisation (Hong et al., 2024; arXiv:2403.07691).

Differs from the paper: it starts from the SFT policy, as all methods of a comparison do, where the paper starts from
the base model and needs no SFT before; all strict pairs of a ranking are trained on together, so that a completion is
fine-tuned on as often as it was preferred; the prompt is not trained on (the authors' code has both); a LoRA adapter
instead of all weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from alignarena.core.contract import Lab, Policy, Schedule, Task
from alignarena.core.registry import method
from alignarena.methods.parts.experience import pairs_of
from alignarena.methods.parts.offline_losses import ORPOLoss


@method("orpo", paper="arXiv:2403.07691", family="offline")
@dataclass(frozen=True)
class ORPO:
    """Fine-tuning on the chosen completion that also lowers the odds of the rejected one; no reference model."""

    odds_coef: float = 0.1  # the paper's lambda: weight of the preference beside fine-tuning
    schedule: Schedule = Schedule(learning_rate=1e-4, num_train_epochs=2, lr_scheduler_type="linear", warmup_ratio=0.1)

    def align(self, task: Task, lab: Lab) -> Policy:
        """Fit the policy to the preferences."""
        preferences = pairs_of(task.preferences["overall"])
        return lab.fit(task.policy, preferences, ORPOLoss(self.odds_coef, soft=preferences.soft), self.schedule)
