"""Hindsight Instruction Relabeling (Zhang et al., 2023; arXiv:2302.05206).

Differs from the paper: feedback is the reward model's score, cut at quantiles of the samples into the task's grades
(`use_checker`: right or wrong, as in the paper); label smoothing is of the contrast alone, since a loss sees no other
token of the vocabulary than the sampled one; the contrast is over instructions for one completion, on summed log-probs
(eq. 4; the released code divides by length); the entropy is that of whole completions, estimated on them; no sub-output
relabelling, as nothing here judges a part of a completion; a decoder with LoRA instead of FLAN-T5, so another rate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from datasets import concatenate_datasets

from alignarena.core.contract import Lab, Policy, Rows, Schedule, Scorer, Task
from alignarena.core.errors import BadInput, BudgetUsedUp
from alignarena.core.registry import method
from alignarena.methods.parts.experience import Fixed
from alignarena.methods.parts.hindsight import HIRLoss, checked, graded, relabelled, tally
from alignarena.methods.parts.instructions import Instructed
from alignarena.methods.parts.reward_modelling import RewardModelling


@method("hir", paper="arXiv:2302.05206", family="online", informed=True)
@dataclass(frozen=True)
class HIR:
    """Ask for the best, see what came, and learn it as the answer to the instruction that it does follow."""

    alpha: float = 1.0  # weight of the contrast between instructions
    entropy_coef: float = 0.001  # weight of the entropy: nothing else holds the policy back, there is no reference
    label_smoothing: float = 0.2  # of the contrast: share left to the other instructions
    rounds: int = 2
    n: int = 4  # completions a prompt and round
    replay: bool = True  # train on the samples of all rounds so far, graded anew together
    grade_within: Literal["prompt", "round"] = "prompt"  # whose scores fall evenly into the grades: a prompt's, or all
    use_checker: bool = False  # right or wrong by the task's checker, instead of grades by a reward model
    reward_model: RewardModelling = RewardModelling()
    schedule: Schedule = Schedule(learning_rate=1e-4, num_train_epochs=2, lr_scheduler_type="linear", warmup_ratio=0.05)

    def align(self, task: Task, lab: Lab) -> Policy:
        """Sample under the best instruction, relabel by what was earned, train; and answer under it ever after."""
        scorer, grades = self._feedback(task, lab)
        policy, best = task.policy, grades[-1]
        kept: list[Rows] = []
        loss = HIRLoss(len(grades), self.alpha, self.entropy_coef, self.label_smoothing)
        for number in range(self.rounds):
            try:
                drawn = lab.sample(Instructed(policy, best), task.prompts, self.n, stream=f"round {number}")
            except BudgetUsedUp:
                break  # what was trained so far answers under its instruction, too
            kept = [*(kept if self.replay else []), lab.score(drawn, scorer)]
            pool = concatenate_datasets(kept)
            rows = checked(pool) if self.use_checker else graded(pool, len(grades), self.grade_within == "prompt")
            lab.note(round=number, **tally(rows, len(grades)))
            policy = lab.fit(policy, Fixed(relabelled(rows, grades)), loss, self.schedule)
        return Instructed(policy, best)

    def _feedback(self, task: Task, lab: Lab) -> tuple[Scorer, tuple[str, ...]]:
        if not self.use_checker:
            return self.reward_model.fit(task, lab), task.grades
        if task.checker is None:
            raise BadInput("hir: use_checker needs a task with a checker, and this one has none; set it to false")
        return task.checker, (task.grades[0], task.grades[-1])


@dataclass(frozen=True)
class InstructedSFT:
    """HIR without its training."""

    def align(self, task: Task, lab: Lab) -> Policy:
        """Put the best instruction before every prompt."""
        return Instructed(task.policy, task.grades[-1])


@method("instructed", paper="arXiv:2302.05206", family="baseline", informed=True)
def instructed_sft() -> InstructedSFT:
    """The SFT policy under HIR's best instruction, untrained: the control that says what the instruction alone does."""
    return InstructedSFT()
