"""Methods made of methods: each stage starts from the policy that the one before it gave."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from alignarena.core.contract import Lab, Method, Policy, Task, TrainablePolicy
from alignarena.core.errors import BadInput, BudgetUsedUp


@runtime_checkable
class Stage(Method, Protocol):
    """A method that leaves more to the next than its policy, such as preferences that it collected."""

    def advance(self, task: Task, lab: Lab) -> Task:
        """Align, and return the task as the next method is to find it."""
        ...


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
        return self.method.align(self._before_the_last(task, lab), lab)

    def advance(self, task: Task, lab: Lab) -> Task:
        """Align as often as there are rounds, and leave what the last one leaves."""
        return after(self.method, self._before_the_last(task, lab), lab)

    def _before_the_last(self, task: Task, lab: Lab) -> Task:
        for left in range(self.rounds, 1, -1):
            task = after(self.method, task, lab.within(1 / left))
        return task


def after(method: Method, task: Task, lab: Lab) -> Task:
    """Return the task as a method leaves it to the next; a share that is used up ends the method where it is.

    Raises:
        BadInput: Its policy cannot be trained further.
    """
    try:
        left = method.advance(task, lab) if isinstance(method, Stage) else _with(task, method.align(task, lab), method)
    except BudgetUsedUp as end:
        left = _with(task, end.last_policy or task.policy, method)
    return replace(left, sft=task.sft or task.policy)


def _with(task: Task, policy: Policy, method: Method) -> Task:
    recipe = hasattr(policy, "policy")  # has log-probs, where it tells its policy something first, but no weights
    if recipe or not isinstance(policy, TrainablePolicy):
        raise BadInput(f"{type(method).__name__} gives a {type(policy).__name__}, which cannot be trained further; "
                       "make it the last stage of its chain")  # fmt: skip
    return replace(task, policy=policy)
