"""Llama 2's recipe: versions, then PPO from the last; what it is charged, and what it does with one axis or two."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import toy_task
from datasets import Dataset

from alignarena.benchmarks.suite import build_method, load_suite
from alignarena.benchmarks.sweep import shared_settings
from alignarena.core.contract import Schedule
from alignarena.core.errors import BadInput, RunFailed
from alignarena.methods.llama2 import Llama2
from alignarena.methods.parts.reward_modelling import RewardModelling
from alignarena.methods.parts.two_rewards import TwoRewardModels, WhitenedPPOLoss

FAST = Schedule(learning_rate=1e-2, num_train_epochs=2, batch_size=8)
SMALL = Llama2(
    versions=2,
    n=4,
    schedule=replace(FAST, num_train_epochs=8),
    updates=2,
    prompts_per_update=8,
    ppo_n=2,
    ppo_schedule=replace(FAST, num_train_epochs=1),
    reward_model=RewardModelling(replace(FAST, num_train_epochs=4)),
)


def verbs(lab: Any) -> list[str]:
    return [stage["verb"] for stage in lab.account.stages if not stage["hit"]]


def test_it_pays_for_its_versions_and_rollouts_and_for_one_reward_model(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell(seed=3)
    policy = SMALL.align(task, lab)
    assert verbs(lab) == [
        "sample", "prefer", "fit_reward_model", "sample", "score",  # annotator, reward model, its scale
        "sample", "score", "fit", "sample", "score", "fit", "fit",
    ]  # fmt: skip
    charged = lab.account.charged
    assert charged.labels == pytest.approx(8 * math.log2(24))
    assert charged.completions == 8 * 4 + 8 + 2 * 8 * 4 + 2 * 8 * 2
    assert policy is lab.account.last_policy


def test_ppo_starts_from_the_last_version_on_whitened_scores(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    policy = SMALL.align(task, lab)
    lines = [json.loads(line) for line in (policy.folder / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["ratio"] == pytest.approx(1.0, abs=1e-12)
    assert lines[0]["objective/kl"] == pytest.approx(0.0, abs=1e-4)  # its reference model is its start
    finished = lines[0]["objective/finished"]
    assert lines[0]["objective/rlhf_reward"] == pytest.approx(finished - 1, abs=1e-4)  # of mean 0, less the penalty
    assert abs(lines[0]["objective/scores"]) > 0.05  # the raw scores are not


def test_it_climbs_the_score(toy_cell: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TwoRewardModels, "fit", lambda self, task, lab: toy_task.Favours())
    lab, task = toy_cell()
    gentle = replace(SMALL.ppo_schedule, learning_rate=3e-3)
    policy = replace(SMALL, n=8, updates=6, ppo_schedule=gentle).align(task, lab)
    before, after = (
        sum(map(toy_task.share, lab.sample(one, task.prompts, 32, stream="evaluation")["completion"])) / 256
        for one in (task.policy, policy)
    )
    assert after > before + 0.1, (before, after)


def test_two_axes_are_two_reward_models_at_no_more_labels(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell(seed=4)
    SMALL.align(toy_task.two_axes(lab, task), lab)
    keys = [stage["key"] for stage in lab.account.stages if stage["verb"] == "fit_reward_model"]
    assert len(set(keys)) == 2
    assert lab.account.charged.labels == pytest.approx(2 * 8 * math.log2(24))  # its axes rank 8 prompts each


def test_fresh_preferences_are_labels_beyond_those_of_others(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    replace(SMALL, fresh_prompts=3).align(task, lab)
    assert lab.account.charged.labels == pytest.approx((8 + 2 * 3) * math.log2(24))
    fits = {stage["key"] for stage in lab.account.stages if stage["verb"] == "fit_reward_model"}
    assert len(fits) == 3  # of the first preferences, and after each version


def test_where_nothing_ends_there_is_nothing_to_train_on(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    sample = lab.sample

    def cut(policy: Any, rows: Any, n: int = 1, *, stream: str, **given: Any) -> Any:
        drawn = sample(policy, rows, n, stream=stream, **given)
        if not stream.startswith("version"):
            return drawn
        return Dataset.from_list([{**row, "finish_reason": "length"} for row in drawn.to_list()])

    lab.sample = cut
    lab.within = lambda fraction: lab
    with pytest.raises(RunFailed, match="none of 32 completions ends by itself"):
        SMALL.align(task, lab)


def test_equal_rewards_do_not_move_ppo_by_themselves(
    toy_cell: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TwoRewardModels, "fit", lambda self, task, lab: toy_task.Favours(scale=0.0))
    lab, task = toy_cell()
    by_reward_alone = WhitenedPPOLoss(kl_coef=0.0, missing_eos_penalty=0.0, vf_coef=0.0)
    policy = replace(SMALL, loss=by_reward_alone).align(task, lab)
    lines = [json.loads(line) for line in (policy.folder / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 2 and all(line["grad_norm"] == pytest.approx(0.0, abs=1e-6) for line in lines)


@pytest.mark.parametrize("wrong", [{"versions": 0}, {"fresh_prompts": -1}])
def test_numbers_that_mean_nothing_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(BadInput, match="versions must be at least 1 and fresh_prompts at least 0"):
        Llama2(**wrong)  # type: ignore[arg-type]


def test_a_suite_sets_its_fields_and_its_reward_models_schedule() -> None:
    plan = load_suite("quickstart")
    given = {"versions": 4, "margin_scale": 3, "loss": {"kl_coef": 0.01}, "ppo_schedule": {"batch_size": 12}}
    method = shared_settings(build_method("llama2", given), given, plan)
    assert isinstance(method, Llama2) and isinstance(method.loss, WhitenedPPOLoss)
    assert (method.versions, method.margin_scale, method.loss.kl_coef) == (4, 3.0, 0.01)
    assert method.ppo_schedule == replace(Llama2().ppo_schedule, batch_size=12)
    assert method.reward_model == plan.reward_model
