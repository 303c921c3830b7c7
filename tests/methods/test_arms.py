"""Rejection sampling and PPO in either order: equal numbers of completions, one reward model, fields from a suite."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from alignarena.benchmarks.suite import build_method, load_suite
from alignarena.benchmarks.sweep import shared_settings
from alignarena.core.contract import Schedule
from alignarena.methods.arms import ppo_then_rs, rs_then_ppo
from alignarena.methods.parts.composition import Chain
from alignarena.methods.parts.reward_modelling import RewardModelling
from alignarena.methods.ppo import PPO
from alignarena.methods.rejection_sampling import RejectionSampling

FAST = Schedule(learning_rate=1e-2, batch_size=8)
REWARD = RewardModelling(FAST)


def small(chain: Chain) -> Chain:
    """Cut both stages to 64 completions of 8 prompts."""

    def cut(method: Any) -> Any:
        if isinstance(method, PPO):
            return replace(method, updates=2, prompts_per_update=8, n=4, reward_model=REWARD, schedule=FAST)
        return replace(method, rounds=1, n=8, reward_model=REWARD, schedule=FAST)

    return replace(chain, first=cut(chain.first), second=cut(chain.second))


@pytest.mark.parametrize("build", [rs_then_ppo, ppo_then_rs])
def test_the_arms_pay_the_same_and_share_a_reward_model(
    toy_cell: Callable[..., Any], build: Callable[[], Chain]
) -> None:
    lab, task = toy_cell()
    policy = small(build()).align(task, lab)
    assert lab.account.charged.completions == 8 * 4 + 8 + 64 + 64  # annotator, scale of the reward, both stages
    assert len({stage["key"] for stage in lab.account.stages if stage["verb"] == "fit_reward_model"}) == 1
    assert len(lab.sample(policy, task.prompts, stream="evaluation")) == 8


def test_the_arms_are_built_from_a_suite_file_with_the_suites_reward_model() -> None:
    plan = load_suite("quickstart")
    given = {"first": {"n": 4, "rounds": 2}, "second": {"updates": 7, "reward_model": {"margin_scale": 1.0}}}
    method = shared_settings(build_method("rs_then_ppo", given), given, plan)
    assert isinstance(method, Chain)
    first, second = method.first, method.second
    assert isinstance(first, RejectionSampling) and (first.n, first.rounds) == (4, 2)
    assert isinstance(second, PPO) and second.updates == 7
    assert first.reward_model == plan.reward_model
    assert second.reward_model.margin_scale == 1.0
