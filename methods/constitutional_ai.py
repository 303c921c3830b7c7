"""Constitutional AI: harmlessness from AI feedback (Bai et al., 2022; arXiv:2212.08073).

Differs from the paper: the first answers are the SFT policy's, not those of a helpful-only model of earlier RLHF, and
the critiques the reviser's, by default the base model's at temperature .3; every comparison is shown to the labeler in
both orders, or graded one by one where the labeler does so, without solved examples; in a task without red-team prompts
all prompts are revised and compared, and nothing else is mixed in; revisions are imitated for 4 epochs at a falling
rate, not once at a constant one; the reward model starts from the SFT policy and is
standardised on its samples; principles and examples are our own; no prompts are generated; LoRA adapters and AdamW.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from alignarena.core.contract import Lab, Policy, Schedule, Task
from alignarena.core.errors import BadInput
from alignarena.core.registry import method
from alignarena.methods.parts.constitution import by_kind, drawn_prompts, imitated, preference_model
from alignarena.methods.parts.experience import Fixed, Rollouts, ScoredBy
from alignarena.methods.parts.losses import SFTLoss
from alignarena.methods.parts.policy_gradient import PPOLoss


@method("constitutional_ai", paper="arXiv:2212.08073", family="online", informed=True)
@dataclass(frozen=True)
class ConstitutionalAI:
    """Imitate one's own answers after critique and revision, then climb what AI prefers by the same principles."""

    revisions: int = 4  # steps of critique and revision; every step's result is imitated
    prompts: int | None = None  # how many are answered and revised, drawn at random; None: all
    helpful: int = 2  # answers to each other prompt that are imitated as they are
    start: Literal["base", "sft"] = "base"  # what imitates: the paper's pretrained model, or the SFT policy
    clamp: float = 0.6  # the most certain that a preference may be where the labeler thinks before it answers
    loss: PPOLoss = PPOLoss(kl_coef=0.05)
    updates: int = 10  # rounds of sampling
    prompts_per_update: int = 24
    n: int = 4  # completions a prompt
    supervised: Schedule = Schedule(learning_rate=4e-4, num_train_epochs=4, lr_scheduler_type="linear")
    reward_schedule: Schedule = Schedule(
        learning_rate=2e-4, num_train_epochs=2, lr_scheduler_type="cosine", warmup_ratio=0.05
    )
    schedule: Schedule = Schedule(
        learning_rate=2e-4, num_train_epochs=2, batch_size=24, lr_scheduler_type="linear", adam_epsilon=1e-5
    )

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            BadInput: No step, or a clamp that leaves no preference.
        """
        if self.revisions < 1 or not 0.5 < self.clamp <= 1:
            raise BadInput(f"constitutional_ai: revisions must be at least 1 and clamp above 0.5 and at most 1, got "
                           f"{self.revisions} and {self.clamp}")  # fmt: skip

    def align(self, task: Task, lab: Lab) -> Policy:
        """Supervise on revisions, then reinforce; the supervised policy is the reference model."""
        to_revise, others = by_kind(task.prompts)
        drawn = drawn_prompts(to_revise, self.prompts, lab)
        rows = imitated(task, (drawn, others), lab, self.revisions, self.helpful)
        start = task.base if self.start == "base" else task.policy
        policy = lab.fit(start, Fixed(rows), SFTLoss(), self.supervised)
        revised = replace(task, policy=policy, sft=task.sft or task.policy)
        reward_model = preference_model(revised, (to_revise, others), lab, self.clamp, self.reward_schedule)
        rollouts = Rollouts(
            task.prompts,
            ScoredBy(reward_model),
            phases=self.updates,
            prompts_per_phase=self.prompts_per_update,
            n=self.n,
            value_start=policy,
        )
        return lab.fit(policy, rollouts, self.loss, self.schedule)
