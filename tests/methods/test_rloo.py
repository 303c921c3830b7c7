"""RLOO: rollouts in groups, no value model; charged for what it samples and reads."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import toy_task
from known_reward import Known

from alignarena.core.contract import Schedule
from alignarena.core.errors import BadInput
from alignarena.methods.parts.group_losses import RLOOLoss
from alignarena.methods.parts.reward_modelling import RewardModelling
from alignarena.methods.rloo import RLOO

REWARD = RewardModelling(Schedule(learning_rate=1e-2, batch_size=8, num_train_epochs=4))
FAST = RLOO(
    updates=3,
    prompts_per_update=8,
    n=4,
    reward_model=REWARD,
    schedule=Schedule(learning_rate=1e-2, batch_size=4, adam_epsilon=1e-5),
)


def curve(policy: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (policy.folder / "metrics.jsonl").read_text().splitlines()]


def test_rloo_is_charged_for_its_rollouts_and_reads_no_values(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    FAST.align(task, lab)
    verbs = [stage["verb"] for stage in lab.account.stages]
    assert verbs == ["sample", "prefer", "fit_reward_model", "sample", "score", "fit"]
    fit = lab.account.stages[-1]["ledger"]
    assert (fit["prompts"], fit["completions"], fit["optimizer_steps"]) == (24, 96, 6)
    # trained: the policy, one epoch; read, once each: reference, old, reward, and prompts when they are sampled from
    prompts = 3 * sum(len(lab.backbone.tokens.prompt_of(row)) for row in task.prompts.to_list())
    assert fit["scored_tokens"] - prompts == pytest.approx(3 * fit["trained_tokens"], rel=0.1)  # equal rows are one
    assert lab.account.charged.labels > 0


def test_every_update_starts_on_policy(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    lines = curve(FAST.align(task, lab))
    assert [line["phase"] for line in lines] == [0, 0, 1, 1, 2, 2]
    for line in lines[::2]:
        assert line["ratio"] == pytest.approx(1.0, abs=1e-12)
        assert (line["approxkl"], line["clipfrac"]) == (0.0, 0.0)
    assert lines[0]["objective/kl"] == pytest.approx(0.0, abs=1e-4)
    assert lines[0]["objective/informative"] > 0.9
    assert lines[1]["ratio"] != 1.0


def test_rloo_climbs_the_score(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    known, schedule = Known(scorer=toy_task.Favours(scale=5.0)), Schedule(learning_rate=1e-2, batch_size=8)
    policy = replace(FAST, updates=25, reward_model=known, schedule=schedule).align(task, lab)
    before, after = (
        sum(map(toy_task.share, lab.sample(one, task.prompts, 8, stream="evaluation")["completion"])) / 64
        for one in (task.policy, policy)
    )
    assert after > before + 0.2


def test_a_scorer_that_cannot_tell_completions_apart_moves_the_policy_by_the_kl_alone(
    toy_cell: Callable[..., Any],
) -> None:
    lab, task = toy_cell()
    loss = RLOOLoss(kl_coef=0.0, missing_eos_penalty=0.0)
    lines = curve(replace(FAST, loss=loss, reward_model=Known(scorer=toy_task.Favours(scale=0.0))).align(task, lab))
    assert [line["objective/informative"] for line in lines] == [0.0] * 6
    assert [line["grad_norm"] for line in lines] == [0.0] * 6


def test_a_prompt_drawn_twice_in_a_phase_is_two_groups(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    policy = replace(FAST, updates=1, prompts_per_update=12, n=2, reward_model=Known()).align(task, lab)
    assert curve(policy)[0]["objective/informative"] > 0.5  # 12 turns of 8 prompts


def test_a_budget_ends_rloo_with_the_policy_it_has(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell(sampled_tokens=700)
    policy = replace(FAST, updates=20).align(task, lab)
    assert lab.account.stages[-1]["stopped"] == "budget"
    assert 0 < len(curve(policy)) < 40


def test_one_completion_a_prompt_has_no_baseline() -> None:
    with pytest.raises(BadInput, match="n must be at least 2, got 1"):
        RLOO(n=1)
