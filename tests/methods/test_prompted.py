"""Prompted: the goal before every prompt, nothing trained, and plain prompts for those who judge."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from alignarena.core.errors import BadInput
from alignarena.methods.parts.instructions import Instructed, instructed
from alignarena.methods.prompted import Prompted


def test_the_goal_is_told_and_nothing_is_trained(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    policy = Prompted().align(replace(task, goal="w5"), lab)
    assert policy == Instructed(task.policy, "w5") and lab.account.stages == []
    drawn = lab.sample(policy, task.prompts, 2, stream="test")
    told = lab.sample(task.policy, instructed(task.prompts, "w5"), 2, stream="test")
    assert drawn["completion"] == told["completion"]
    assert drawn["prompt"] == [prompt for prompt in task.prompts["prompt"] for _ in range(2)]
    assert "prompt_ids" not in drawn.column_names  # they hold the goal, which a reference model must not see


def test_log_probs_are_those_under_the_goal(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    policy = Instructed(task.policy, "w5")
    drawn = lab.sample(policy, task.prompts, stream="test")
    under_goal = lab.logps(policy, drawn)["logps"]
    for sampled, computed in zip(drawn["logps"], under_goal, strict=True):
        assert computed == pytest.approx(sampled, abs=1e-4)
    assert lab.logps(task.policy, drawn)["logps"] != under_goal


def test_a_conversation_is_told_before_its_last_turn() -> None:
    from datasets import Dataset

    turns = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Yes?"},
             {"role": "user", "content": "Go on."}]  # fmt: skip
    rows = instructed(Dataset.from_list([{"prompt_id": "p", "prompt": turns}]), "Be kind.")
    assert [turn["content"] for turn in rows[0]["prompt"]] == ["Hello.", "Yes?", "Be kind. Go on."]


def test_a_task_without_a_goal_is_refused(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    with pytest.raises(BadInput, match="no goal in words"):
        Prompted().align(replace(task, goal=""), lab)
