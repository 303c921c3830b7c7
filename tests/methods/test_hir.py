"""HIR: sampled under the best instruction, told afterwards what it did follow, and answering under the best one."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import toy_task
from datasets import Dataset

from alignarena.core import registry
from alignarena.core.contract import Rows, Schedule, Scorer
from alignarena.core.errors import BadInput
from alignarena.methods.hir import HIR, InstructedSFT
from alignarena.methods.parts.instructions import Instructed, instructed
from alignarena.methods.parts.reward_modelling import RewardModelling
from alignarena.methods.parts.rows import by_prompt

FAST = Schedule(learning_rate=1e-2, num_train_epochs=4, batch_size=8)
GRADES = ("w290", "w291", "w292")  # one word each: the toy model's prompts are words


@dataclass(frozen=True)
class Given(RewardModelling):
    """A known scorer where a reward model would be fitted."""

    def fit(self, task: Any, lab: Any) -> Scorer:
        return toy_task.Favours()


@dataclass(frozen=True)
class AlwaysSays:
    """A checker of one verdict."""

    verdict: float

    @property
    def lineage(self) -> frozenset[str]:
        return frozenset({"rule"})

    def score(self, rows: Rows, lab: Any) -> list[float]:
        return [self.verdict] * len(rows)


PLAIN = HIR(rounds=1, n=6, grade_within="round", reward_model=Given(), schedule=FAST)


def run(cell: tuple[Any, Any], method: HIR, **changes: Any) -> tuple[Any, list[list[dict[str, Any]]]]:
    """Run the method; return its policy and the rows of each fit."""
    (lab, task), seen = cell, []
    fit = lab.fit

    def noting(policy: Any, experience: Any, loss: Any, schedule: Any) -> Any:
        if experience.data.column_names.count("prompt_0"):
            seen.append(experience.data.to_list())
        return fit(policy, experience, loss, schedule)

    lab.fit = noting
    return method.align(replace(task, grades=GRADES, **changes), lab), seen


def test_samples_are_drawn_under_the_best_instruction_and_graded_by_score(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    _, (rows,) = run((lab, task), PLAIN)
    drawn = lab.sample(Instructed(task.policy, GRADES[-1]), task.prompts, 6, stream="round 0")
    assert [row["completion_ids"] for row in rows] == drawn["completion_ids"][:]
    assert [row["prompt"] for row in rows] == drawn["prompt"][:]  # the plain one is what scorers see
    finished = [row for row in rows if row["finish_reason"] == "stop"]
    assert 0 < len(finished) < len(rows)
    ordered = sorted(finished, key=lambda row: row["score"])
    assert [row["grade"] for row in ordered] == sorted(row["grade"] for row in finished)
    assert {row["grade"] for row in finished} == {0, 1, 2}
    assert {row["grade"] for row in rows if row["finish_reason"] == "length"} == {0}


def test_grades_may_be_a_prompts_own(toy_cell: Callable[..., Any]) -> None:
    _, (rows,) = run(toy_cell(), replace(PLAIN, grade_within="prompt"))
    for group in by_prompt(Dataset.from_list(rows)):
        ordered = sorted((row for row in group if row["finish_reason"] == "stop"), key=lambda row: row["score"])
        assert [row["grade"] for row in ordered] == sorted(row["grade"] for row in ordered)
        assert not ordered or ordered[-1]["grade"] == 2


def test_t20_one_instruction_in_sampling_training_and_evaluation(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    policy, (rows,) = run((lab, task), PLAIN)
    assert policy.instruction == GRADES[-1]
    trained = {row["prompt_id"]: row["prompt_2"] for row in rows}
    evaluated = instructed(task.prompts, policy.instruction)
    assert trained == dict(zip(evaluated["prompt_id"], evaluated["prompt"], strict=True))
    under = lab.sample(policy.policy, evaluated, stream="the same draw")["completion_ids"][:]
    assert lab.sample(policy, task.prompts, stream="the same draw")["completion_ids"][:] == under
    assert all(row["sampled_logp"] == pytest.approx(sum(row["logps"])) for row in rows)


def test_it_learns_which_samples_follow_which_instruction(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    policy, (rows,) = run((lab, task), replace(PLAIN, schedule=replace(FAST, num_train_epochs=8)))
    lines = curve(policy)
    assert 0.2 < lines[0]["best"] < 0.4 and lines[0]["entropy"] > 0
    assert lines[-1]["accuracy"] > 0.9 > lines[0]["accuracy"] + 0.2
    assert lines[-1]["contrast"] < 0.5 * lines[0]["contrast"]
    under = [summed(lab, Instructed(policy.policy, one), rows) for one in (GRADES[-1], GRADES[0])]
    told_apart = [(best > worst) == (row["grade"] == 2) for row, best, worst in zip(rows, *under, strict=True)
                  if row["grade"] != 1]  # fmt: skip
    assert sum(told_apart) > 0.95 * len(told_apart)
    assert all(best > row["sampled_logp"] for row, best in zip(rows, under[0], strict=True) if row["grade"] == 2)


def summed(lab: Any, policy: Any, rows: list[dict[str, Any]]) -> list[float]:
    return [sum(logps) for logps in lab.logps(policy, Dataset.from_list(rows))["logps"]]


def curve(policy: Any) -> list[dict[str, float]]:
    return [json.loads(line) for line in (policy.policy.folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("replay", [True, False])
def test_replay_keeps_the_samples_of_earlier_rounds(toy_cell: Callable[..., Any], replay: bool) -> None:
    lab, task = toy_cell()
    _, (first, second) = run((lab, task), replace(PLAIN, rounds=2, replay=replay))
    assert (len(first), len(second)) == (8 * 6, 8 * 6 * (1 + replay))
    ids = [row["completion_ids"] for row in second]
    assert (ids[: len(first)] == [row["completion_ids"] for row in first]) == replay
    finished = [row["grade"] for row in second if row["finish_reason"] == "stop"]
    assert len(finished) / 3 <= finished.count(2) <= len(finished) / 2  # graded anew, all together


def test_with_a_fitted_reward_model_it_samples_and_pays(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    reward_model = RewardModelling(Schedule(learning_rate=1e-2, batch_size=8))
    policy, _ = run((lab, task), replace(PLAIN, n=4, reward_model=reward_model))
    assert [stage["verb"] for stage in lab.account.stages] == [
        "sample", "prefer", "fit_reward_model", "sample", "score", "sample", "score", "fit",
    ]  # fmt: skip
    fit = lab.account.stages[-1]["ledger"]
    assert lab.account.charged.labels > 0
    assert (fit["completions"], fit["scored_tokens"]) == (0, 0)  # no reference model, nothing sampled inside
    assert len(lab.sample(policy, task.prompts, stream="evaluation")) == 8


def test_a_checker_gives_two_grades(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    policy, (rows,) = run((lab, task), replace(PLAIN, use_checker=True), checker=AlwaysSays(1.0))
    assert not lab.account.charged.labels  # no reward model
    assert {(row["grade"], row["finish_reason"]) for row in rows} == {(1, "stop"), (0, "length")}
    assert "prompt_2" not in rows[0]
    assert rows[0]["prompt_0"].startswith(GRADES[0]) and rows[0]["prompt_1"].startswith(policy.instruction)


def test_where_all_is_wrong_it_learns_what_wrong_is(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    policy, (rows,) = run((lab, task), replace(PLAIN, use_checker=True), checker=AlwaysSays(0.0))
    assert {row["grade"] for row in rows} == {0}
    lines = curve(policy)
    assert [line["best"] for line in lines] == [0.0] * len(lines)
    assert lines[-1]["contrast"] < lines[0]["contrast"]  # the same outputs, and the instruction they don't follow


def test_without_a_checker_there_is_nothing_to_use(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    with pytest.raises(BadInput, match="use_checker needs a task with a checker"):
        replace(PLAIN, use_checker=True).align(task, lab)


def test_a_budget_leaves_the_policy_it_has_under_its_instruction(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell(sampled_tokens=400)
    policy, rounds = run((lab, task), replace(PLAIN, rounds=5))
    assert 0 < len(rounds) < 5
    assert policy.instruction == GRADES[-1]
    assert policy.policy is lab.account.last_policy
    assert lab.account.used_up  # which is what a report will say


def test_the_control_is_the_instruction_without_training(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    policy = registry.find("instructed").build().align(task, lab)
    assert policy == InstructedSFT().align(task, lab) == Instructed(task.policy, task.grades[-1])
    assert not lab.account.stages
