"""Fine-tuning on what the labeler writes itself: the control of RLAIF (Lee et al., 2023; arXiv:2309.00267).

Differs from the paper: it is not in it. Whoever learns from a labeler's judgement may be learning no more than the
labeler's own way of answering; this learns only that, by likelihood, from the same model told the same goal.
"""

from __future__ import annotations

from dataclasses import dataclass

from alignarena.core.contract import Lab, Policy, Schedule, Task
from alignarena.core.registry import method
from alignarena.methods.parts.experience import Fixed
from alignarena.methods.parts.labels import writer_of
from alignarena.methods.parts.losses import SFTLoss
from alignarena.methods.parts.rows import finished


@method("labeler_distillation", paper="arXiv:2309.00267", family="baseline", informed=True)
@dataclass(frozen=True)
class LabelerDistillation:
    """What is left of AI feedback without any feedback."""

    n: int = 1  # completions a prompt
    schedule: Schedule = Schedule(learning_rate=1e-4, num_train_epochs=2, lr_scheduler_type="linear", warmup_ratio=0.05)

    def align(self, task: Task, lab: Lab) -> Policy:
        """Let the labeler answer the prompts, told the goal; keep the answers that end, under the plain prompts."""
        answers = lab.sample(writer_of(task), task.prompts, self.n, stream="labeler's own")
        return lab.fit(task.policy, Fixed(finished(answers)), SFTLoss(), self.schedule)
