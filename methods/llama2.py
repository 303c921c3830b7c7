"""Llama 2-Chat's recipe: rejection sampling in versions, then PPO (Touvron et al., 2023; arXiv:2307.09288).

Differs from the paper: every model samples for itself (only the largest did); prompts are the same in every version,
and completions drawn at temperature 1 (the paper tunes it anew for each version); people are asked again between
versions only if `fresh_prompts` says so, since methods are compared at equal labels; reward models start from the SFT
policy, not from the latest, see no open data and have no auxiliary loss, as no row says whether it is safe: the zero of
a score is its mean on SFT samples; no completion that does not end is trained on, and PPO takes `missing_eos_penalty`
off one; PPO's KL weight is ours; LoRA adapters instead of all weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from alignarena.core.contract import Lab, Policy, Schedule, Task
from alignarena.core.errors import BadInput
from alignarena.core.registry import method
from alignarena.methods.parts.composition import Chain, Iterate
from alignarena.methods.parts.reward_modelling import RewardModelling
from alignarena.methods.parts.two_rewards import TwoRewardModels, WhitenedPPOLoss
from alignarena.methods.parts.versions import Version
from alignarena.methods.ppo import PPO


@method("llama2", paper="arXiv:2307.09288", family="online")
@dataclass(frozen=True)
class Llama2:
    """Versions of the base model, each trained on the best samples of all versions before it; PPO from the last."""

    versions: int = 3
    n: int = 8  # completions a prompt and version
    fresh_prompts: int = 0  # ranked by people after each version, beyond the labels that other methods use
    margin_scale: float = 1.0  # of the annotator's grades in the reward models: 1 small table, 3 large table, 0 off
    schedule: Schedule = Schedule(learning_rate=4e-4, num_train_epochs=3, lr_scheduler_type="cosine", warmup_ratio=0.05)
    loss: WhitenedPPOLoss = WhitenedPPOLoss(kl_coef=0.05)
    updates: int = 5  # rounds of sampling in PPO
    prompts_per_update: int = 24
    ppo_n: int = 4  # completions a prompt and update
    ppo_schedule: Schedule = Schedule(
        learning_rate=2e-4, num_train_epochs=2, batch_size=24, lr_scheduler_type="linear", adam_epsilon=1e-5
    )
    share: float = 0.5  # of the budget that the versions may spend, where there is one; PPO may spend the rest
    reward_model: RewardModelling = RewardModelling()  # its margin_scale and axis are set here

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            BadInput: There is no version, or a negative number of prompts.
        """
        if self.versions < 1 or self.fresh_prompts < 0:
            raise BadInput(
                f"llama2: versions must be at least 1 and fresh_prompts at least 0, got {self.versions} and "
                f"{self.fresh_prompts}"
            )

    def align(self, task: Task, lab: Lab) -> Policy:
        """Make the versions, then reinforce the last one."""
        reward_model = TwoRewardModels(self.reward_model.schedule, self.margin_scale)
        version = Version(self.n, self.fresh_prompts, reward_model, self.schedule)
        ppo = PPO(
            loss=self.loss,
            updates=self.updates,
            prompts_per_update=self.prompts_per_update,
            n=self.ppo_n,
            reward_model=reward_model,
            schedule=self.ppo_schedule,
        )
        return Chain(Iterate(version, self.versions), ppo, self.share).align(task, lab)
