"""Online DPO: direct alignment from online feedback, OAIF (Guo et al., 2024; arXiv:2402.04792).

Differs from the paper: a reward model fitted to the preferences says which of two samples is better, where the paper
prompts a large language model; a completion that does not end loses `missing_eos_penalty` of its score before they are
compared; several steps may be taken on the pairs of a phase; sampling at temperature 1; LoRA adapters instead of all
weights. Of the paper's three losses this is the one with DPO's.
"""

from __future__ import annotations

from dataclasses import dataclass

from alignarena.core.contract import Lab, Policy, Schedule, Task
from alignarena.core.registry import method
from alignarena.methods.parts.experience import ComparedByScore, Rollouts
from alignarena.methods.parts.group_losses import OnlineDPOLoss
from alignarena.methods.parts.reward_modelling import RewardModelling


@method("online_dpo", paper="arXiv:2402.04792", family="online")
@dataclass(frozen=True)
class OnlineDPO:
    """Draw two completions from the policy being trained, ask which one is better, take a step of DPO."""

    beta: float = 0.1  # larger keeps the policy closer to the reference model
    soft: bool = False  # learn how probable a preference is by the scores' difference, not only which way it goes
    missing_eos_penalty: float = 1.0  # taken off the score of a completion that does not finish
    updates: int = 10  # rounds of sampling
    prompts_per_update: int = 48  # two completions each
    reward_model: RewardModelling = RewardModelling()
    schedule: Schedule = Schedule(learning_rate=2e-4, batch_size=24, lr_scheduler_type="linear")

    def align(self, task: Task, lab: Lab) -> Policy:
        """Fit a reward model to the preferences, then the policy to what it prefers of the policy's own samples."""
        feedback = ComparedByScore(self.reward_model.fit(task, lab), self.missing_eos_penalty, self.soft)
        pairs = Rollouts(task.prompts, feedback, self.updates, self.prompts_per_update, n=2)
        return lab.fit(task.policy, pairs, OnlineDPOLoss(self.beta, soft=self.soft), self.schedule)
