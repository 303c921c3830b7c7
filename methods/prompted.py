"""The SFT policy told in words what is wanted: prompting instead of training (the GPT-3 row of Ouyang et al., 2022).

Differs from the paper: the prompt is one sentence, the task's goal, without few-shot examples; it stands before the
policy that was fine-tuned on demonstrations, so that it and every trained method have the same start.
"""

from __future__ import annotations

from dataclasses import dataclass

from alignarena.core.contract import Lab, Policy, Task
from alignarena.core.errors import BadInput
from alignarena.core.registry import method
from alignarena.methods.parts.instructions import Instructed


@method("prompted", paper="arXiv:2203.02155", family="baseline", informed=True)
@dataclass(frozen=True)
class Prompted:
    """What words alone do: the floor of every method that is told the goal."""

    def align(self, task: Task, lab: Lab) -> Policy:
        """Put the goal before every prompt.

        Raises:
            BadInput: The task has no goal in words.
        """
        if not task.goal:
            raise BadInput("prompted: this task states no goal in words (data set without one); leave the method out")
        return Instructed(task.policy, task.goal)
