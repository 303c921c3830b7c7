"""RLAIF, distilled: reinforcement learning from AI feedback (Lee et al., 2023; arXiv:2309.00267).

Differs from the paper: the KL penalty stands in the return, which has the gradient of the paper's loss term and less
variance; rewards are standardised on samples of the SFT policy; pairs are two samples of the SFT policy; completions
are sampled at temperature 1, not .9; one that does not end loses `missing_eos_penalty`; a phase has two steps, the
second a little off-policy and not reweighed; no checkpoint is chosen by a judge; LoRA adapters and AdamW instead of
all weights and Adafactor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from alignarena.core.contract import Lab, Policy, Schedule, Task
from alignarena.core.registry import method
from alignarena.methods.parts.experience import Rollouts, ScoredBy
from alignarena.methods.parts.labels import distilled
from alignarena.methods.parts.policy_gradient import PPOLoss
from alignarena.methods.parts.reinforce import ReinforceLoss


@method("rlaif", paper="arXiv:2309.00267", family="online", informed=True)
@dataclass(frozen=True)
class RLAIF:
    """A labeler compares samples, a reward model learns its soft preferences, and the policy climbs the reward."""

    optimiser: Literal["reinforce", "ppo"] = "reinforce"  # the paper's, or the other methods'
    reinforce: ReinforceLoss = ReinforceLoss()
    ppo: PPOLoss = PPOLoss(kl_coef=0.05)
    soft: bool = True  # learn how probable each preference is; False: only which it is
    updates: int = 10  # rounds of sampling
    prompts_per_update: int = 24
    n: int = 4  # completions a prompt
    reward_schedule: Schedule = Schedule(
        learning_rate=2e-4, num_train_epochs=2, lr_scheduler_type="cosine", warmup_ratio=0.05
    )
    schedule: Schedule = Schedule(learning_rate=2e-4, batch_size=12, lr_scheduler_type="linear", adam_epsilon=1e-5)

    def align(self, task: Task, lab: Lab) -> Policy:
        """Label, distil, and reinforce; policy and value model both start from the SFT policy."""
        reward_model = distilled(task, lab, self.soft, self.reward_schedule)
        rollouts = Rollouts(
            task.prompts,
            ScoredBy(reward_model),
            phases=self.updates,
            prompts_per_phase=self.prompts_per_update,
            n=self.n,
            value_start=task.policy,
        )
        return lab.fit(task.policy, rollouts, self.loss, self.schedule)

    @property
    def loss(self) -> ReinforceLoss | PPOLoss:
        """The loss of the optimiser that is chosen."""
        return self.reinforce if self.optimiser == "reinforce" else self.ppo
