"""The base model: nothing done, nothing charged."""

from collections.abc import Callable
from typing import Any

from alignarena.core.records import Ledger
from alignarena.methods.base import Base


def test_the_base_owes_nothing_not_even_sft(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    policy = Base().align(task, lab)
    lab.settle(policy)
    assert policy is task.base
    assert lab.account.charged == Ledger()
    answers = lab.sample(policy, task.prompts, stream="evaluation")
    assert len(answers) == 8
    assert lab.account.charged.trained_tokens == 0
    assert answers["completion"] != lab.sample(task.policy, task.prompts, stream="evaluation")["completion"]
