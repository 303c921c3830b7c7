"""Rejection-sampling fine-tuning (Touvron et al., 2023, section 3.2.3; arXiv:2307.09288).

Differs from the paper: every model samples for itself (only Llama 2's largest did); the rounds go on from the latest
policy and train on their own best samples (the paper restarts each version from the base and pools all rounds: the
iterated recipe); one reward model, of one axis; completions that do not end are never kept.
"""

from __future__ import annotations

from dataclasses import dataclass

from alignarena.core.contract import Lab, Policy, Schedule, Task
from alignarena.core.registry import method
from alignarena.methods.parts.experience import Fixed
from alignarena.methods.parts.losses import SFTLoss
from alignarena.methods.parts.reward_modelling import RewardModelling
from alignarena.methods.parts.rows import best_of, finished


@method("rejection_sampling", paper="arXiv:2307.09288", family="online")
@dataclass(frozen=True)
class RejectionSampling:
    """Draw n completions a prompt, fine-tune on the best one, and again from the policy this gives."""

    rounds: int = 2
    n: int = 8  # completions a prompt and round
    reward_model: RewardModelling = RewardModelling()
    schedule: Schedule = Schedule(learning_rate=1e-4, num_train_epochs=2, lr_scheduler_type="linear", warmup_ratio=0.05)

    def align(self, task: Task, lab: Lab) -> Policy:
        """Climb the reward model by imitation of the best of n."""
        policy, reward_model = task.policy, self.reward_model.fit(task, lab)
        for number in range(self.rounds):
            drawn = lab.sample(policy, task.prompts, self.n, stream=f"round {number}")
            best = best_of(finished(lab.score(drawn, reward_model)), lab)
            policy = lab.fit(policy, Fixed(best), SFTLoss(), self.schedule)
        return policy
