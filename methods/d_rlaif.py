"""Direct RLAIF: the labeler's own score is the reward, without a reward model (Lee et al., 2023; arXiv:2309.00267).

Differs from the paper: grades 0 to 9 instead of 1 to 10, so that each is one token; the KL penalty stands in the
return, which has the gradient of the paper's loss term and less variance; completions are sampled at temperature 1, not
.9; one that does not end loses `missing_eos_penalty`; a phase has two steps, the second a little off-policy and not
reweighed; LoRA adapters and AdamW instead of all weights and Adafactor.
"""

from __future__ import annotations

from dataclasses import dataclass

from alignarena.core.contract import Lab, Policy, Schedule, Task
from alignarena.core.registry import method
from alignarena.methods.parts.experience import Rollouts, ScoredBy
from alignarena.methods.parts.labels import scorer_of
from alignarena.methods.parts.reinforce import ReinforceLoss


@method("d_rlaif", paper="arXiv:2309.00267", family="online", informed=True)
@dataclass(frozen=True)
class DirectRLAIF:
    """Nothing goes stale: the labeler reads what the policy writes now, at a call a completion."""

    loss: ReinforceLoss = ReinforceLoss()
    updates: int = 10  # rounds of sampling
    prompts_per_update: int = 24
    n: int = 4  # completions a prompt
    schedule: Schedule = Schedule(learning_rate=2e-4, batch_size=12, lr_scheduler_type="linear", adam_epsilon=1e-5)

    def align(self, task: Task, lab: Lab) -> Policy:
        """Reinforce what the labeler scores high; policy and value model both start from the SFT policy."""
        rollouts = Rollouts(
            task.prompts,
            ScoredBy(scorer_of(task)),
            phases=self.updates,
            prompts_per_phase=self.prompts_per_update,
            n=self.n,
            value_start=task.policy,
        )
        return lab.fit(task.policy, rollouts, self.loss, self.schedule)
