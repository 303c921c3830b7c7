"""PPO-RLHF: a reward model, then rollouts that are charged as they are."""

import json
from collections.abc import Callable
from dataclasses import replace
from math import log2
from typing import Any

import pytest
import toy_task
from datasets import concatenate_datasets

from alignarena.core import registry
from alignarena.core.contract import Schedule
from alignarena.methods.parts.demonstrations import WithDemonstrations
from alignarena.methods.parts.experience import Rollouts, ScoredBy, in_turn
from alignarena.methods.parts.policy_gradient import PPOLoss
from alignarena.methods.parts.reward_modelling import RewardModelling
from alignarena.methods.parts.rows import rankings
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
    cells = [toy_cell(seed=9) for _ in range(2)]  # a seed of its own: the cache is shared by all tests
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


def test_explained_variance_is_logged_once_a_phase_and_grows_with_the_value_model(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    lines = curve(replace(FAST, updates=6, loss=PPOLoss(kl_coef=0.05, vf_coef=1.0)).align(task, lab))
    explained = [line["objective/explained_variance"] for line in lines[::2]]
    assert explained == [line["objective/explained_variance"] for line in lines[1::2]]
    assert max(explained) <= 1 and max(explained[3:]) > explained[0]


def test_values_start_at_0_or_at_the_reward_models_scores(toy_cell: Callable[..., Any]) -> None:
    explained = {}
    for start in ("policy", "reward_model"):
        lab, task = toy_cell()
        lines = curve(replace(FAST, updates=1, value_start=start).align(task, lab))
        explained[start] = lines[0]["objective/explained_variance"]
    assert explained["policy"] == 0.0
    assert explained["reward_model"] != 0.0


def test_the_adaptive_coefficient_moves_from_phase_to_phase_as_ziegler_et_al_have_it(
    toy_cell: Callable[..., Any],
) -> None:
    lab, task = toy_cell()
    lines = curve(replace(FAST, loss=PPOLoss(kl_coef=0.05, target_kl=0.2, kl_horizon=64)).align(task, lab))
    used = 0.05
    for line in lines[::2]:  # 16 completions of a horizon of 64
        used *= 1 + min(max(line["objective/kl"] / 0.2 - 1, -0.2), 0.2) * 16 / 64
        assert line["kl_coef"] == pytest.approx(used)
    assert lines[-1]["kl_coef"] != lines[0]["kl_coef"] != 0.05


@pytest.mark.parametrize("k", [4, 9])
def test_a_reward_model_learns_from_rankings_of_4_to_9(toy_cell: Callable[..., Any], k: int) -> None:
    lab, task = toy_cell()
    drawn = lab.sample(task.policy, task.prompts, k, stream=f"rankings of {k}")
    ranked = lab.prefer(rankings(drawn), task.annotator)
    assert lab.account.charged.labels == pytest.approx(8 * log2({4: 24, 9: 362880}[k]))
    model = REWARD.fit(replace(task, preferences={"overall": ranked}), lab)
    fit = next(stage for stage in lab.account.stages if stage["verb"] == "fit_reward_model")
    assert fit["ledger"]["optimizer_steps"] == 4  # a batch counts prompts, whatever K is
    scored = lab.score(drawn, model)
    gold = toy_task.Favours().score(drawn, lab)
    assert concordance(list(scored["score"]), gold, k) > 0.7


def test_rankings_of_4_and_of_9_mix(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    drawn = [lab.sample(task.policy, task.prompts.select(part), k, stream=f"mixed {k}")
             for k, part in ((4, range(4)), (9, range(4, 8)))]  # fmt: skip
    ranked = lab.prefer(concatenate_datasets([rankings(one) for one in drawn]), task.annotator)
    assert lab.account.charged.labels == pytest.approx(4 * log2(24) + 4 * log2(362880))
    REWARD.fit(replace(task, preferences={"overall": ranked}), lab)
    assert [stage for stage in lab.account.stages if stage.get("dropped")] == []


def concordance(scores: list[float], gold: list[float], k: int) -> float:
    """Return the share of pairs of a prompt that scores and gold order alike, of those that gold orders."""
    pairs = [(i, j) for start in range(0, len(gold), k) for i in range(start, start + k) for j in range(start, i)]
    strict = [(i, j) for i, j in pairs if gold[i] != gold[j]]
    return sum((scores[i] > scores[j]) == (gold[i] > gold[j]) for i, j in strict) / len(strict)


# -- PPO-ptx ------------------------------------------------------------------------------------------------------


def with_ptx(coef: float) -> PPO:
    return replace(FAST, loss=replace(FAST.loss, ptx_coef=coef))


def test_ppo_ptx_is_ppo_with_demonstrations() -> None:
    built = registry.find("ppo_ptx").build()
    assert isinstance(built, PPO) and built.loss.ptx_coef > 0
    assert replace(built, loss=replace(built.loss, ptx_coef=0.0)) == PPO()


def test_every_prompt_of_a_phase_has_the_next_demonstration(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    rollouts = Rollouts(task.prompts, ScoredBy(toy_task.Favours()), phases=3, prompts_per_phase=8, n=2)
    experience = WithDemonstrations(rollouts, task.demonstrations)
    shown = []
    for phase in range(3):
        rows = experience.rows(phase, task.policy, lab)
        plain = rollouts.rows(phase, task.policy, lab)
        assert rows.select_columns(plain.column_names).to_list() == plain.to_list()
        assert rows["demonstration"][::2] == rows["demonstration"][1::2]  # one for both completions
        shown += list(zip(rows["demonstration_prompt"][::2], rows["demonstration"][::2], strict=True))
    every = zip(task.demonstrations["prompt"][:], task.demonstrations["completion"][:], strict=True)
    assert sorted(shown) == sorted(every)  # 3 phases of 8 are one pass through 24


def test_ppo_ptx_holds_on_to_demonstrations(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    nats = {}
    for coef in (0.0, 1.0):
        policy = with_ptx(coef).align(task, lab)
        nats[coef] = -sum(map(sum, lab.logps(policy, task.demonstrations)["logps"]))
    assert nats[1.0] < nats[0.0] - 10


def test_ppo_ptx_pays_for_the_demonstrations_it_reads(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    fits = [with_ptx(coef).align(task, lab) and lab.account.stages[-1]["ledger"] for coef in (0.0, 1.0)]
    tokens = lab.backbone.tokens
    shown = in_turn(task.demonstrations, 0, 8, lab, "demonstration order").to_list()
    completions = sum(len(tokens.completions_of(row, "completion")[0]) for row in shown)
    prompts = sum(len(tokens.prompt_of(row)) for row in shown)  # each computed unless a rollout beside it has the same
    assert [fit["completions"] for fit in fits] == [48, 48] and fits[0]["optimizer_steps"] == fits[1]["optimizer_steps"]
    first = [curve(with_ptx(coef).align(task, lab))[0]["tokens"] for coef in (0.0, 1.0)]  # of a step on equal rollouts
    assert completions <= (first[1] - first[0]) / 2 <= completions + prompts  # half is the value model's


def test_ppo_ptx_starts_every_phase_on_policy(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    lines = curve(with_ptx(1.0).align(task, lab))
    for line in lines[::2]:
        assert line["ratio"] == pytest.approx(1.0, abs=1e-12)
        assert (line["approxkl"], line["clipfrac"]) == (0.0, 0.0)
    assert 0 < lines[-1]["ptx_loss"] < 10 and "ptx_loss" not in curve(FAST.align(task, lab))[0]
