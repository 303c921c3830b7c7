"""Group relative policy optimisation, GRPO (Shao et al., 2024; arXiv:2402.03300).

Differs from the paper: outcome supervision only (one score a completion, none a step); a frozen reward model, fitted
once and standardised on SFT samples; the SFT policy stays the reference model; groups of 4 instead of 64, two steps a
phase instead of one; a completion that does not end loses `missing_eos_penalty` of its score; LoRA adapters instead of
all weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from alignarena.core.contract import Lab, Policy, Schedule, Task
from alignarena.core.errors import BadInput
from alignarena.core.registry import method
from alignarena.methods.parts.experience import Rollouts, ScoredInGroups
from alignarena.methods.parts.group_losses import GRPOLoss
from alignarena.methods.parts.reward_modelling import RewardModelling


@method("grpo", paper="arXiv:2402.03300", family="online")
@dataclass(frozen=True)
class GRPO:
    """PPO with scores standardised among a prompt's completions for advantages, and the KL penalty in the loss."""

    loss: GRPOLoss = GRPOLoss()
    updates: int = 10  # rounds of sampling
    prompts_per_update: int = 24
    n: int = 4  # completions a prompt, at least 2
    reward_model: RewardModelling = RewardModelling()
    schedule: Schedule = Schedule(learning_rate=2e-4, batch_size=12, lr_scheduler_type="linear", adam_epsilon=1e-5)

    def __post_init__(self) -> None:
        """Check n.

        Raises:
            BadInput: It is below 2.
        """
        if self.n < 2:
            raise BadInput(f"grpo: n must be at least 2, got {self.n}: a completion is compared with the others")

    def align(self, task: Task, lab: Lab) -> Policy:
        """Fit a reward model to the preferences, then the policy to the standardised reward."""
        feedback = ScoredInGroups(self.reward_model.fit(task, lab))
        rollouts = Rollouts(task.prompts, feedback, self.updates, self.prompts_per_update, self.n)
        return lab.fit(task.policy, rollouts, self.loss, self.schedule)
