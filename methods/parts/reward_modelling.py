"""From preferences to a reward on one scale: what every method with a reward model shares."""

from __future__ import annotations

from dataclasses import dataclass

from alignarena.core.contract import Lab, PreferenceStream, Schedule, Scorer, Task
from alignarena.core.feedback import standardised
from alignarena.methods.parts.reward_losses import KWiseRewardLoss


@dataclass(frozen=True)
class RewardModelling:
    """A K-wise reward model on the SFT backbone, standardised on samples of the SFT policy.

    Methods with equal settings share one reward model of a seed through the cache, and each is charged for it.
    """

    schedule: Schedule = Schedule(learning_rate=2e-4, batch_size=16, lr_scheduler_type="cosine", warmup_ratio=0.05)
    margin_scale: float = 0.0  # weight of the annotator's margins (Llama 2); 0 is InstructGPT's loss
    axis: str = "overall"

    def fit(self, task: Task, lab: Lab) -> Scorer:
        """Fit the reward model of a task and fix its scale (Ziegler et al. 2019: mean 0, deviation 1).

        The oracle of an exact stream has a scale already, that of the truth. It starts from the SFT policy in each
        stage of a chain: what follows a stage is judged on the scale that the stage was.
        """
        preferences, loss = task.preferences[self.axis], KWiseRewardLoss(self.margin_scale)
        start = task.sft or task.policy
        reward_model = lab.fit_reward_model(start, preferences, loss, self.schedule)
        if isinstance(preferences, PreferenceStream):
            return reward_model
        references = lab.sample(start, task.prompts, stream="reference")
        return standardised(reward_model, lab.score(references, reward_model)["score"])
