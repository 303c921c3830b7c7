"""GRPO: PPO's clipping on standardised scores, no value model; the scale of the scores does not matter."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import toy_task
from known_reward import Known

from alignarena.core.contract import Schedule
from alignarena.core.errors import BadInput
from alignarena.methods.grpo import GRPO
from alignarena.methods.parts.group_losses import GRPOLoss
from alignarena.methods.parts.reward_modelling import RewardModelling

REWARD = RewardModelling(Schedule(learning_rate=1e-2, batch_size=8, num_train_epochs=4))
FAST = GRPO(
    updates=3,
    prompts_per_update=8,
    n=4,
    reward_model=REWARD,
    schedule=Schedule(learning_rate=1e-2, batch_size=4, adam_epsilon=1e-5),
)


def curve(policy: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (policy.folder / "metrics.jsonl").read_text().splitlines()]


def test_grpo_is_charged_for_its_rollouts_and_starts_each_on_policy(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    lines = curve(FAST.align(task, lab))
    verbs = [stage["verb"] for stage in lab.account.stages]
    assert verbs == ["sample", "prefer", "fit_reward_model", "sample", "score", "fit"]
    fit = lab.account.stages[-1]["ledger"]
    assert (fit["prompts"], fit["completions"], fit["optimizer_steps"]) == (24, 96, 6)
    for line in lines[::2]:
        assert line["ratio"] == pytest.approx(1.0, abs=1e-12)
        assert (line["approxkl"], line["clipfrac"]) == (0.0, 0.0)
    assert lines[0]["k3"] == pytest.approx(0.0, abs=1e-6)
    assert lines[-1]["k3"] > 0


def test_grpo_climbs_the_score(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    schedule = Schedule(learning_rate=1e-2, batch_size=8, adam_epsilon=1e-5)
    policy = replace(FAST, updates=15, reward_model=Known(), schedule=schedule).align(task, lab)
    before, after = (
        sum(map(toy_task.share, lab.sample(one, task.prompts, 8, stream="evaluation")["completion"])) / 64
        for one in (task.policy, policy)
    )
    assert after > before + 0.2


def test_the_scale_of_the_scores_does_not_matter(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    method = replace(FAST, loss=GRPOLoss(missing_eos_penalty=0.0))
    runs = [
        curve(replace(method, reward_model=Known(scorer=toy_task.Favours(scale, shift))).align(task, lab))
        for scale, shift in ((1.0, 0.0), (8.0, 2.0))
    ]
    for name in ("loss", "grad_norm", "objective/kl", "objective/informative"):
        assert [line[name] for line in runs[0]] == pytest.approx([line[name] for line in runs[1]], abs=1e-3), name


def test_prompts_of_equal_scores_are_counted_and_teach_nothing(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    loss = GRPOLoss(missing_eos_penalty=0.0)
    lines = curve(replace(FAST, loss=loss, reward_model=Known(scorer=toy_task.Favours(scale=0.0))).align(task, lab))
    assert [line["objective/informative"] for line in lines] == [0.0] * 6
    assert max(line["grad_norm"] for line in lines) < 1e-4  # at the reference model the KL term has none either


def test_a_budget_ends_grpo_with_the_policy_it_has(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell(sampled_tokens=700)
    policy = replace(FAST, updates=20).align(task, lab)
    assert lab.account.stages[-1]["stopped"] == "budget"
    assert 0 < len(curve(policy)) < 40


def test_one_completion_a_prompt_cannot_be_compared() -> None:
    with pytest.raises(BadInput, match="n must be at least 2, got 1"):
        GRPO(n=1)
