"""From preferences to a reward on one scale: what every method with a reward model shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from alignarena.core.contract import Lab, PreferenceStream, Schedule, Scorer, Task
from alignarena.core.feedback import standardised
from alignarena.methods.parts.reward_losses import KWiseRewardLoss
from alignarena.methods.parts.rows import untied


@dataclass(frozen=True)
class RewardModelling:
    """A K-wise reward model on the SFT backbone, standardised on samples of the SFT policy.

    Methods with equal settings share one reward model of a seed through the cache, and each is charged for it.
    """

    schedule: Schedule = Schedule(learning_rate=2e-4, batch_size=16, lr_scheduler_type="cosine", warmup_ratio=0.05)
    margin_scale: float = 0.0  # of the annotator's margins: 1 is Llama 2's small table, 3 its large one, 0 InstructGPT
    axis: str = "overall"

    def fit(self, task: Task, lab: Lab) -> Scorer:
        """Fit the reward model of a task and fix its scale (Ziegler et al. 2019: mean 0, deviation 1)."""
        return self.fitted(task, lab, standardised)

    def fitted(self, task: Task, lab: Lab, placed: Callable[[Scorer, Sequence[float]], Scorer]) -> Scorer:
        """Fit the reward model of a task and fix its scale by its scores of SFT samples.

        The oracle of an exact stream has a scale already, that of the truth. It starts from the SFT policy in each
        stage of a chain: what follows a stage is judged on the scale that the stage was.
        """
        preferences, loss = task.preferences[self.axis], KWiseRewardLoss(self.margin_scale)
        start = task.sft or task.policy
        if isinstance(preferences, PreferenceStream):
            return lab.fit_reward_model(start, preferences, loss, self.schedule)
        reward_model = lab.fit_reward_model(start, untied(preferences), loss, self.schedule)
        references = lab.sample(start, task.prompts, stream="reference")
        return placed(reward_model, lab.score(references, reward_model)["score"])
