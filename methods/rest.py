"""Reinforced Self-Training, ReST (Gulcehre et al., 2023; arXiv:2308.08998).

Differs from the paper: rewards are normalised to [0, 1] as quantiles of the first grow step's scores, so that
thresholds are shares and an increasing map of the reward changes nothing; prompts are the task's, not those of the
demonstrations; samples are drawn at temperature 1 (0.8 in the paper); an improve step has a fixed number of epochs,
where the paper takes the checkpoint of best reward; likelihood loss only, the best in all of its comparisons (no V-MPO,
no GOLD); completions that do not end are never kept; AdamW on a LoRA adapter.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

from alignarena.core.contract import Lab, Policy, Rows, Schedule, Task, TrainablePolicy
from alignarena.core.errors import BadInput
from alignarena.core.registry import method
from alignarena.methods.parts import filters
from alignarena.methods.parts.experience import Fixed
from alignarena.methods.parts.losses import SFTLoss
from alignarena.methods.parts.reward_modelling import RewardModelling
from alignarena.methods.parts.rows import finished


@method("rest", paper="arXiv:2308.08998", family="online")
@dataclass(frozen=True)
class ReST:
    """Grow a data set from the policy, then imitate ever better parts of it; samples are used more than once."""

    grow_steps: int = 2  # how often the policy is sampled anew
    thresholds: tuple[float, ...] = (0.7, 0.9)  # quantiles to be exceeded, one an improve step, rising
    n: int = 8  # completions a prompt and grow step
    per_prompt: bool = False  # quantiles among a prompt's own samples, which no prompt is too hard for
    demonstrations: bool = True  # whether the demonstrations are in the data, filtered as the samples are
    learning_rate_factor: float = 0.5  # from one improve step to the next
    reward_model: RewardModelling = RewardModelling()
    schedule: Schedule = Schedule(learning_rate=2e-4, lr_scheduler_type="linear", warmup_ratio=0.05)

    def __post_init__(self) -> None:
        """Check the thresholds.

        Raises:
            BadInput: There are none, or they do not rise.
        """
        if not self.thresholds or any(low >= high for low, high in pairwise(self.thresholds)):
            raise BadInput(f"rest: thresholds must rise from one improve step to the next, got {self.thresholds}")

    def align(self, task: Task, lab: Lab) -> Policy:
        """Alternate grow and improve steps; the scale of rewards is fixed by the first grow step."""
        policy, reward_model = task.policy, self.reward_model.fit(task, lab)
        shown = self.demonstrations and len(task.demonstrations) > 0
        given = lab.score(task.demonstrations, reward_model) if shown else None
        first: list[float] = []
        for number in range(self.grow_steps):
            # the first round of rejection sampling of as many completions is these same samples
            drawn = lab.score(lab.sample(policy, task.prompts, self.n, stream=f"round {number}"), reward_model)
            rows = finished(drawn) if given is None else filters.joined(finished(drawn), given)
            first = first or rows["score"][:]
            policy = self._improved(policy, rows, first, lab)
        return policy

    def _improved(self, policy: TrainablePolicy, rows: Rows, first: list[float], lab: Lab) -> TrainablePolicy:
        """Imitate what exceeds one threshold after the other, until nothing does."""
        own = self.per_prompt
        reward = filters.own_quantiles(rows, first) if own else filters.quantiles(rows["score"][:], first)
        lab.note(mean_reward=float(reward.mean()), informative_prompts=filters.informative(rows))
        for step, threshold in enumerate(self.thresholds):
            kept = reward > threshold
            lab.note(threshold=threshold, **filters.coverage(rows, kept))
            if not kept.any():
                break  # an empty set teaches nothing, and a lower threshold was not asked for
            rate = self.schedule.learning_rate * self.learning_rate_factor**step
            schedule = replace(self.schedule, learning_rate=rate)
            policy = lab.fit(policy, Fixed(filters.where(rows, kept)), SFTLoss(), schedule)
        return policy
