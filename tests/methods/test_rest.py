"""ReST: what each improve step trains on, and the identities T11, T12 and T13."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import toy_task
from datasets import Dataset
from known_reward import PLAIN, Known, Untied, drawn, trained_on

from alignarena.benchmarks.cell import _curves
from alignarena.core.contract import Schedule, Scorer
from alignarena.core.errors import BadInput
from alignarena.methods.parts.reward_modelling import RewardModelling
from alignarena.methods.rejection_sampling import RejectionSampling
from alignarena.methods.rest import ReST

FAST = Schedule(learning_rate=1e-2, batch_size=8)


def given(scorer: Scorer = PLAIN, **changes: Any) -> ReST:
    settings: dict[str, Any] = {"grow_steps": 1, "n": 6, "demonstrations": False, "schedule": FAST, **changes}
    return ReST(reward_model=Known(scorer=scorer), **settings)


def names(rows: list[dict[str, Any]]) -> list[tuple[str, Any]]:
    return [(row["prompt_id"], row["sample"]) for row in rows]


def test_improve_steps_train_on_ever_better_rows_at_ever_lower_rates(toy_cell: Callable[..., Any]) -> None:
    cell = toy_cell()
    _, fits, schedules = trained_on(cell, given(thresholds=(0.2, 0.5, 0.8)))
    rows = drawn(cell, 6)
    scores = sorted(toy_task.share(row["completion"]) for row in rows)
    for threshold, kept in zip((0.2, 0.5, 0.8), fits, strict=True):
        wanted = []
        for row in rows:
            score = toy_task.share(row["completion"])
            if sum(other <= score for other in scores) / len(scores) > threshold:
                wanted.append((row["prompt_id"], row["sample"]))
        assert names(kept) == wanted
    assert len(fits[0]) > len(fits[1]) > len(fits[2]) > 0
    assert [schedule.learning_rate for schedule in schedules] == [1e-2, 5e-3, 2.5e-3]
    assert all(row["finish_reason"] == "stop" for row in fits[0])


@pytest.mark.parametrize("scorer", [toy_task.Favours(shift=100.0), toy_task.Favours(bent=True)])
@pytest.mark.parametrize("per_prompt", [True, False])
def test_T11_a_monotone_transform_of_the_reward_leaves_the_sets_unchanged(
    toy_cell: Callable[..., Any], scorer: Scorer, per_prompt: bool
) -> None:
    settings = {"thresholds": (0.3, 0.7), "per_prompt": per_prompt, "grow_steps": 2}
    _, plain, _ = trained_on(toy_cell(), given(**settings))
    _, changed, _ = trained_on(toy_cell(), given(scorer, **settings))
    assert [names(rows) for rows in plain] == [names(rows) for rows in changed]


def test_T12_one_improve_step_on_each_prompts_best_is_a_round_of_rejection_sampling(
    toy_cell: Callable[..., Any],
) -> None:
    scorer = Untied()  # without ties: of equal scores, rejection sampling draws one and ReST keeps all
    cell, other = toy_cell(), toy_cell()
    policy, (kept,), _ = trained_on(cell, given(scorer, thresholds=(0.99,), per_prompt=True))
    sampler = RejectionSampling(rounds=1, n=6, reward_model=Known(scorer=scorer), schedule=FAST)
    its_policy, (best,), _ = trained_on(other, sampler)
    assert kept == best
    assert policy.digest == its_policy.digest


def test_T13_no_threshold_is_behaviour_cloning_of_all_the_data(toy_cell: Callable[..., Any]) -> None:
    cell = toy_cell()
    _, (rows,), _ = trained_on(cell, given(thresholds=(float("-inf"),), demonstrations=True))
    sampled = names(drawn(cell, 6))
    shown = [(row["prompt_id"], None) for row in cell[1].demonstrations]
    assert names(rows) == [*sampled, *shown]


def test_demonstrations_are_filtered_as_samples_are(toy_cell: Callable[..., Any]) -> None:
    cell = toy_cell()
    _, (kept,), _ = trained_on(cell, given(thresholds=(0.6,), demonstrations=True))
    every = [*drawn(cell, 6), *cell[1].demonstrations.to_list()]
    scores = [toy_task.share(row["completion"]) for row in every]
    least = min(toy_task.share(row["completion"]) for row in kept)
    shown = [row for row in kept if row["sample"] is None]
    assert 0 < len(shown) < len(cell[1].demonstrations)
    assert len(kept) == sum(score >= least for score in scores)  # a level of score is kept as a whole
    noted = cell[0].account.notes[-1]
    assert noted["kept_demonstrations"] == pytest.approx(len(shown) / len(cell[1].demonstrations))


def test_demonstrations_are_filtered_where_quantiles_are_each_prompts_own(toy_cell: Callable[..., Any]) -> None:
    kept = {}
    for per_prompt in (False, True):
        lab, task = toy_cell()
        others = [{**row, "prompt_id": f"sft/{i}"} for i, row in enumerate(task.demonstrations.to_list())]
        cell = lab, replace(task, demonstrations=Dataset.from_list(others))
        _, (rows,), _ = trained_on(cell, given(thresholds=(0.6,), demonstrations=True, per_prompt=per_prompt))
        kept[per_prompt] = [row["prompt_id"] for row in rows if row["sample"] is None]
    assert 0 < len(kept[False]) < len(others)
    assert kept[True] == kept[False]  # by the same scale, as none of their prompts was sampled


def test_the_scale_of_rewards_is_that_of_the_first_grow_step(toy_cell: Callable[..., Any]) -> None:
    cell = toy_cell()
    lab, _ = cell
    many = replace(FAST, num_train_epochs=10)
    _, fits, _ = trained_on(cell, given(thresholds=(0.8,), grow_steps=2, n=12, schedule=many))
    least = [min(toy_task.share(row["completion"]) for row in rows) for rows in fits]
    assert least[1] >= least[0]  # the same score is asked for
    assert len(fits[1]) > 1.2 * len(fits[0])  # and more of a better policy's samples have it
    means = [note["mean_reward"] for note in lab.account.notes if "mean_reward" in note]
    assert means[1] > means[0] + 0.05


def test_when_nothing_passes_the_chain_ends_with_the_policy_it_has(toy_cell: Callable[..., Any]) -> None:
    lab, _ = cell = toy_cell()
    policy, fits, _ = trained_on(cell, given(thresholds=(0.5, 1.0, 2.0)))
    assert len(fits) == 1 and policy is lab.account.last_policy
    kept = [note["kept_rows"] for note in lab.account.notes if "kept_rows" in note]
    assert kept == [pytest.approx(len(fits[0]) / len(drawn(cell, 6))), 0.0]
    lab, task = cell = toy_cell()
    policy, fits, _ = trained_on(cell, given(thresholds=(1.0,)))
    assert fits == [] and policy is task.policy


def test_equal_rewards_are_noted_and_imitated_whole(toy_cell: Callable[..., Any]) -> None:
    lab, _ = cell = toy_cell()
    _, (rows,), _ = trained_on(cell, given(toy_task.Favours(scale=0.0), thresholds=(0.9,)))
    assert names(rows) == names(drawn(cell, 6))
    assert lab.account.notes == [
        {"mean_reward": 1.0, "informative_prompts": 0.0},
        {"threshold": 0.9, "kept_rows": 1.0, "kept_prompts": 1.0},
    ]


def test_what_was_kept_stands_beside_the_training_curves(toy_cell: Callable[..., Any]) -> None:
    lab, _ = cell = toy_cell()
    trained_on(cell, given(thresholds=(0.2, 0.8)))
    lines = list(_curves(lab))
    assert [line["loss_name"] for line in lines] == ["SFTLoss", "SFTLoss", "noted", "noted", "noted"]
    assert [line.get("threshold") for line in lines[-2:]] == [0.2, 0.8]


def test_a_global_threshold_starves_prompts_that_one_per_prompt_keeps(toy_cell: Callable[..., Any]) -> None:
    kept = {}
    for per_prompt in (False, True):
        lab, _ = cell = toy_cell()
        trained_on(cell, given(thresholds=(0.8,), per_prompt=per_prompt))
        kept[per_prompt] = lab.account.notes[-1]["kept_prompts"]
    assert kept[False] < kept[True] == 1.0


def test_it_climbs_the_score_and_samples_once_a_grow_step(toy_cell: Callable[..., Any]) -> None:
    lab, task = cell = toy_cell()
    method = given(thresholds=(0.5, 0.8), grow_steps=2, n=8, schedule=replace(FAST, num_train_epochs=8))
    policy, fits, _ = trained_on(cell, method)
    assert len(fits) == 4 and lab.account.charged.completions == 2 * 8 * 8
    before, after = (
        sum(map(toy_task.share, lab.sample(one, task.prompts, 64, stream="evaluation")["completion"])) / 512
        for one in (task.policy, policy)
    )
    assert after > before + 0.1


def test_with_a_fitted_reward_model_it_pays_for_labels(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    reward_model = RewardModelling(Schedule(learning_rate=1e-2, batch_size=8))
    ReST(n=4, grow_steps=1, reward_model=reward_model, schedule=FAST).align(task, lab)
    verbs = [stage["verb"] for stage in lab.account.stages]
    assert verbs[:5] == ["sample", "prefer", "fit_reward_model", "sample", "score"]
    assert verbs[5:] == ["score", "sample", "score", "fit", "fit"]  # the demonstrations, once, then what is drawn
    assert lab.account.charged.labels > 0


@pytest.mark.parametrize("thresholds", [(), (0.5, 0.5), (0.9, 0.7)])
def test_thresholds_must_rise(thresholds: tuple[float, ...]) -> None:
    with pytest.raises(BadInput, match="thresholds must rise"):
        ReST(thresholds=thresholds)


def test_its_first_samples_are_those_of_rejection_sampling(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    ReST(n=4, grow_steps=1, reward_model=Known(), schedule=FAST).align(task, lab)
    RejectionSampling(rounds=1, n=4, reward_model=Known(), schedule=FAST).align(task, lab)
    for verb, made in (("sample", 1), ("score", 2)):  # what is drawn, and the demonstrations
        stages = [stage for stage in lab.account.stages if stage["verb"] == verb]
        assert len(stages) == made + 1 and len({stage["key"] for stage in stages}) == made
