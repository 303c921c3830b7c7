"""Methods made of methods: each stage starts from the policy that the one before it gave."""

from __future__ import annotations

from dataclasses import dataclass, replace

from alignarena.core.contract import Lab, Method, Policy, Task, TrainablePolicy
from alignarena.core.errors import BadInput, BudgetUsedUp


@dataclass(frozen=True)
class Chain:
    """Two methods, one after the other; a chain is a method, so that longer ones are chains of chains.

    The second stage's start, and so its reference model, is the policy of the first. A reward model is that of the
    first stage where the stages' settings for it are equal: made once and charged once.
    """

    first: Method
    second: Method
    share: float = 0.5  # of the budget that the first may spend, where there is one; the second may spend the rest

    def align(self, task: Task, lab: Lab) -> Policy:
        """Align by the first method, then go on by the second."""
        return self.second.align(after(self.first, task, lab.within(self.share)), lab)


@dataclass(frozen=True)
class Iterate:
    """One method, again and again: every round starts from the policy of the one before, with an equal budget."""

    method: Method
    rounds: int

    def align(self, task: Task, lab: Lab) -> Policy:
        """Align as often as there are rounds."""
        for left in range(self.rounds, 1, -1):
            task = after(self.method, task, lab.within(1 / left))
        return self.method.align(task, lab)


def after(method: Method, task: Task, lab: Lab) -> Task:
    """Return the task as a method leaves it to the next; a share that is used up ends the method where it is.

    Raises:
        BadInput: Its policy cannot be trained further.
    """
    try:
        policy = method.align(task, lab)
    except BudgetUsedUp as end:
        policy = end.last_policy or task.policy
    return replace(task, policy=_trainable(policy, method), sft=task.sft or task.policy)


def _trainable(policy: Policy, method: Method) -> TrainablePolicy:
    if not isinstance(policy, TrainablePolicy):
        raise BadInput(f"{type(method).__name__} gives a {type(policy).__name__}, which cannot be trained further; "
                       "make it the last stage of its chain")  # fmt: skip
    return policy
