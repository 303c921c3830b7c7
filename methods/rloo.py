"""REINFORCE leave-one-out, RLOO (Ahmadian et al., 2024; arXiv:2402.14740).

Differs from the paper: where a phase takes several steps, a completion is weighed by the clipped ratio of its
probability now to that at sampling (as in TRL; on a phase's first step it is 1 and the gradient is REINFORCE's); the
reward model is standardised on SFT samples; a completion that does not end loses `missing_eos_penalty` of its score;
LoRA adapters instead of all weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from alignarena.core.contract import Lab, Policy, Schedule, Task
from alignarena.core.errors import BadInput
from alignarena.core.registry import method
from alignarena.methods.parts.experience import Rollouts, ScoredInGroups
from alignarena.methods.parts.group_losses import RLOOLoss
from alignarena.methods.parts.reward_modelling import RewardModelling


@method("rloo", paper="arXiv:2402.14740", family="online")
@dataclass(frozen=True)
class RLOO:
    """Sample, score, step: a completion is judged against the others of its prompt, and there is no value model."""

    loss: RLOOLoss = RLOOLoss()
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
            raise BadInput(f"rloo: n must be at least 2, got {self.n}: the baseline is the mean of the others")

    def align(self, task: Task, lab: Lab) -> Policy:
        """Fit a reward model to the preferences, then the policy to the reward."""
        feedback = ScoredInGroups(self.reward_model.fit(task, lab))
        rollouts = Rollouts(task.prompts, feedback, self.updates, self.prompts_per_update, self.n)
        return lab.fit(task.policy, rollouts, self.loss, self.schedule)
