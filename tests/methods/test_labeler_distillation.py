"""The control of AI feedback: what the labeler writes itself, learnt by likelihood."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import toy_task
from toy_labeler import ToyLabeler, with_labeler

from alignarena.core.contract import Schedule
from alignarena.core.errors import BadInput
from alignarena.methods.labeler_distillation import LabelerDistillation
from alignarena.methods.parts.experience import Fixed
from alignarena.methods.parts.instructions import Instructed
from alignarena.methods.parts.labels import writer_of
from alignarena.methods.parts.losses import SFTLoss

FAST = LabelerDistillation(n=2, schedule=Schedule(learning_rate=1e-2, batch_size=8, num_train_epochs=2))


def test_it_learns_the_labelers_own_answers_without_a_call_or_label(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    others = toy_task.prompts(24).map(lambda row: {"completion": toy_task.words("labeler", row["prompt_id"])})
    writer = lab.fit(task.policy, Fixed(others), SFTLoss(), Schedule(learning_rate=1e-2, num_train_epochs=4))
    before = len(lab.account.stages)
    policy = FAST.align(with_labeler(task, ToyLabeler(writer=writer)), lab)
    assert [stage["verb"] for stage in lab.account.stages[before:]] == ["sample", "fit"]
    assert (lab.account.charged.labels, lab.account.charged.labeler_calls) == (0, 0)
    fresh = lab.sample(writer, task.prompts, 4, stream="fresh")
    likelihood = {name: sum(map(sum, lab.logps(one, fresh)["logps"])) for name, one in
                  (("aligned", policy), ("sft", task.policy))}  # fmt: skip
    assert likelihood["aligned"] > likelihood["sft"]


def test_the_labeler_is_told_the_goal_and_the_policy_is_not(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    told = writer_of(replace(with_labeler(task, ToyLabeler(writer=task.base)), goal="w7"))
    assert told == Instructed(task.base, "w7")
    answers = lab.sample(told, task.prompts, stream="labeler's own")
    assert answers["prompt"] == task.prompts["prompt"]


def test_a_labeler_that_is_a_program_is_refused(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    for without in (task, with_labeler(task)):
        with pytest.raises(BadInput, match="only judges and writes nothing to learn from"):
            FAST.align(without, lab)
