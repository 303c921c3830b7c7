"""PPO-RLHF (Ziegler et al., 2019, arXiv:1909.08593; Ouyang et al., 2022, arXiv:2203.02155; Huang et al., 2024).

Differs from the paper: LoRA adapters instead of all weights; the reward model is standardised on SFT samples (Ziegler's
way, not InstructGPT's bias alone), so that one kl_coef means the same for every reward model; a completion that does
not end loses `missing_eos_penalty` of its score instead of having it replaced; values start at 0, from the SFT policy,
not from the reward model (`value_start` has both). PPO-ptx mixes in demonstrations, as a task has no pretraining text,
with a weight of ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from alignarena.core.contract import Lab, Policy, Schedule, Task
from alignarena.core.registry import method
from alignarena.methods.parts.demonstrations import WithDemonstrations
from alignarena.methods.parts.experience import Rollouts, ScoredBy
from alignarena.methods.parts.policy_gradient import PPOLoss
from alignarena.methods.parts.reward_modelling import RewardModelling


@method("ppo", paper="arXiv:2203.02155", family="online")
@dataclass(frozen=True)
class PPO:
    """Sample, score, step: a value model beside the policy, and a KL penalty that keeps it near the SFT policy."""

    loss: PPOLoss = PPOLoss(kl_coef=0.05)
    updates: int = 10  # rounds of sampling
    prompts_per_update: int = 24
    n: int = 4  # completions a prompt
    reward_model: RewardModelling = RewardModelling()
    value_start: Literal["policy", "reward_model"] = "policy"  # values of 0 at first, or scores
    schedule: Schedule = Schedule(
        learning_rate=2e-4, num_train_epochs=2, batch_size=24, lr_scheduler_type="linear", adam_epsilon=1e-5
    )

    def align(self, task: Task, lab: Lab) -> Policy:
        """Fit a reward model to the preferences, then the policy to the reward."""
        reward_model = self.reward_model.fit(task, lab)
        rollouts = Rollouts(
            task.prompts,
            ScoredBy(reward_model),
            phases=self.updates,
            prompts_per_phase=self.prompts_per_update,
            n=self.n,
            value_start=reward_model if self.value_start == "reward_model" else task.policy,
        )
        experience = WithDemonstrations(rollouts, task.demonstrations) if self.loss.ptx_coef else rollouts
        return lab.fit(task.policy, experience, self.loss, self.schedule)


@method("ppo_ptx", paper="arXiv:2203.02155", family="online")
def ppo_ptx() -> PPO:
    """PPO that also raises the log-prob of demonstrations, so as not to forget them (Ouyang et al., 2022, eq. 2)."""
    return PPO(loss=PPOLoss(kl_coef=0.05, ptx_coef=0.1))
