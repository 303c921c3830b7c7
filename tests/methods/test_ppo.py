"""PPO-RLHF: a reward model, then rollouts that are charged as they are."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from alignarena.core.contract import Schedule
from alignarena.methods.parts.policy_gradient import PPOLoss
from alignarena.methods.parts.reward_modelling import RewardModelling
from alignarena.methods.ppo import PPO
from alignarena.methods.rejection_sampling import RejectionSampling

REWARD = RewardModelling(Schedule(learning_rate=1e-2, batch_size=8, num_train_epochs=4))
FAST = PPO(
    loss=PPOLoss(kl_coef=0.05),
    updates=3,
    prompts_per_update=8,
    n=2,
    reward_model=REWARD,
    schedule=Schedule(learning_rate=1e-2, num_train_epochs=2, batch_size=8, adam_epsilon=1e-5),
)
VERBS = ["sample", "prefer", "fit_reward_model", "sample", "score", "fit"]


def curve(policy: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (policy.folder / "metrics.jsonl").read_text().splitlines()]


def test_ppo_is_charged_for_its_rollouts_and_its_reward_model(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    policy = FAST.align(task, lab)
    assert [stage["verb"] for stage in lab.account.stages] == VERBS
    fit = lab.account.stages[-1]["ledger"]
    assert (fit["prompts"], fit["completions"], fit["optimizer_steps"]) == (24, 48, 6)
    assert 48 <= fit["sampled_tokens"] <= 48 * 12
    # trained: policy and value model, two epochs; read: reference, old, values and reward, once each
    assert fit["trained_tokens"] == fit["scored_tokens"] - prompt_tokens(lab, task, 3)
    assert lab.account.charged.labels > 0
    assert len(lab.sample(policy, task.prompts, stream="evaluation")) == 8


def prompt_tokens(lab: Any, task: Any, passes: int) -> int:
    """Return the tokens of all prompts, prefilled when they are sampled from."""
    return passes * sum(len(lab.backbone.tokens.prompt_of(row)) for row in task.prompts.to_list())


def test_every_update_starts_on_policy_at_standardised_rewards(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    lines = curve(FAST.align(task, lab))
    assert [line["phase"] for line in lines] == [0, 0, 1, 1, 2, 2]
    for line in lines[::2]:
        assert line["ratio"] == pytest.approx(1.0, abs=1e-12)
        assert (line["approxkl"], line["clipfrac"]) == (0.0, 0.0)
    assert abs(lines[0]["objective/scores"]) < 1.5  # mean 0 and deviation 1 on samples of the same policy
    assert lines[0]["objective/kl"] == pytest.approx(0.0, abs=1e-4)
    assert lines[-1]["objective/kl"] != pytest.approx(0.0, abs=1e-4)


def test_methods_with_equal_settings_share_one_reward_model_and_each_pays(toy_cell: Callable[..., Any]) -> None:
    cells = [toy_cell(seed=1) for _ in range(2)]
    FAST.align(cells[0][1], cells[0][0])
    RejectionSampling(rounds=1, n=4, reward_model=REWARD).align(cells[1][1], cells[1][0])
    first, second = (lab.account.stages[:5] for lab, _ in cells)
    assert [stage["verb"] for stage in first] == VERBS[:5]
    assert [stage["key"] for stage in first] == [stage["key"] for stage in second]
    assert [stage["hit"] for stage in first] == [False] * 5
    assert [stage["hit"] for stage in second] == [True] * 5
    assert [stage["ledger"] for stage in first] == [stage["ledger"] for stage in second]


def test_a_budget_ends_ppo_with_the_policy_it_has(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell(sampled_tokens=500)
    policy = replace(FAST, updates=20).align(task, lab)
    assert lab.account.stages[-1]["stopped"] == "budget"
    assert 0 < len(curve(policy)) < 40
    assert lab.account.charged.sampled_tokens >= 500
