"""What the laboratory says of a policy, prompt by prompt, in either setting."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from alignarena.benchmarks.exact.laboratory import Laboratory, logps, own_target, scores
from alignarena.benchmarks.exact.text import prompt_rows
from alignarena.evaluators.exact import targets
from alignarena.evaluators.exact.gold import WorldGold
from alignarena.evaluators.exact.optimum import expectation, kl, tilted
from alignarena.methods.best_of_n import BestOfN, BestOfNPolicy
from alignarena.methods.cpl import CPL
from alignarena.methods.dpo import DPO
from alignarena.methods.ipo import IPO
from alignarena.methods.rejection_sampling import RejectionSampling
from alignarena.methods.sft import SFT

NOISE = 0.5


@pytest.fixture(scope="module")
def laboratory(small_world: Any) -> Laboratory:
    """In the limit setting."""
    return small_world.laboratory  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def budget(small_world: Any) -> Laboratory:
    """The same world where an annotator with noise is asked."""
    start, sft = small_world.start, small_world.bench.sft
    return Laboratory(start.suite.data.world, start.backbone, sft, unlimited=False, noise=NOISE)


def test_every_prompt_is_measured_under_its_own_name(laboratory: Laboratory, small_world: Any) -> None:
    found = list(laboratory.measured(small_world.bench.sft, SFT()))
    held_out, trained = laboratory.held_out, laboratory.trained
    count = len(held_out.combinations)
    assert [row["prompt"] for row, _ in found] == [row["prompt"] for row in [*held_out.rows, *trained.rows]]
    assert len({row["prompt_id"] for row, _ in found}) == len(found)
    evaluated = {row["prompt_id"] for row in prompt_rows(held_out.world.held_out, 1, "evaluation")}
    assert {row["prompt_id"] for row, _ in found[:count]} == evaluated  # those that completions are sampled for
    assert {name.endswith("_trained") for _, values in found[:count] for name in values} == {False}
    assert {name.endswith("_trained") for _, values in found[count:] for name in values} == {True}
    names = {name.removesuffix("_trained") for _, values in found for name in values}
    assert names == set(found[0][1]) and "exact_learning_error" in names
    assert [values["gold"] for _, values in found[:count]] == pytest.approx(
        expectation(held_out.log_reference, held_out.gold)
    )
    assert all(values["kl"] == 0 == values["exact_learning_error"] for _, values in found[:count])


def test_what_is_infinite_is_left_empty(laboratory: Laboratory, small_world: Any) -> None:
    ((_, values), *_) = laboratory.measured(small_world.bench.sft, RejectionSampling(rounds=1, n=4))
    assert values["exact_objective_bias"] is None  # it drops what does not end, which the optimum does not
    assert all(value is not None for name, value in values.items() if name != "exact_objective_bias")


def test_nothing_is_said_of_the_target_of_a_method_unheard_of(laboratory: Laboratory, small_world: Any) -> None:
    assert own_target(object(), laboratory.trained) is None
    ((_, values), *_) = laboratory.measured(small_world.bench.sft, object())  # type: ignore[arg-type]
    assert "exact_learning_error" not in values and values["exact_kl_from_optimum"] is not None


def test_the_frontier_rises_ever_more_slowly(laboratory: Laboratory) -> None:
    frontier = laboratory.frontier()
    kl_steps, reward_steps = np.diff(frontier["kl"]), np.diff(frontier["reward"])
    assert frontier["kl"][0] == 0 and (kl_steps > 0).all() and (reward_steps > 0).all()
    assert (np.diff(reward_steps / kl_steps) < 1e-6).all()


def test_best_of_n_is_computed_from_what_it_is_made_of(laboratory: Laboratory, small_world: Any) -> None:
    trained = laboratory.trained
    gold = WorldGold(trained.world)
    policy = BestOfNPolicy(small_world.bench.sft, gold, 4)
    assert scores(gold, trained) == pytest.approx(trained.gold)
    assert logps(policy, trained) == pytest.approx(targets.best_of_n(trained.log_reference, trained.gold, 4))
    assert logps(policy, trained) == pytest.approx(own_target(BestOfN(n=4), trained), abs=1e-6)
    nested = BestOfNPolicy(policy, gold, 2)  # type: ignore[arg-type]
    assert logps(nested, trained) == pytest.approx(targets.best_of_n(trained.log_reference, trained.gold, 8), abs=1e-6)


def test_without_limit_methods_see_gold_itself(laboratory: Laboratory) -> None:
    trained = laboratory.trained
    assert trained.preferred is trained.gold and trained.rewarded is trained.gold
    share = trained.world.uniform_share
    data = (1 - share) * np.exp(trained.log_reference) + share / trained.gold.shape[1]
    assert np.exp(trained.log_data) == pytest.approx(data)
    optimum = tilted(trained.log_reference, trained.gold, 0.3)
    assert own_target(DPO(beta=0.3), trained) == pytest.approx(optimum)
    assert own_target(CPL(alpha=0.3, bias=1.0), trained) == pytest.approx(optimum)
    assert own_target(DPO(label_smoothing=0.1), trained) is None and own_target(CPL(gamma=0.9), trained) is None


def test_a_budget_gives_gold_in_units_of_the_noise(budget: Laboratory, laboratory: Laboratory) -> None:
    prompts = budget.trained
    assert prompts.preferred == pytest.approx(laboratory.trained.gold / NOISE)
    assert prompts.log_data == pytest.approx(prompts.log_reference)
    mean = expectation(prompts.log_reference, prompts.rewarded).mean()
    square = expectation(prompts.log_reference, prompts.rewarded**2).mean()
    assert (mean, square) == pytest.approx((0, 1), abs=1e-6)  # standardised on samples of the SFT policy
    stronger = tilted(prompts.log_reference, prompts.gold, 0.3 * NOISE)
    assert own_target(DPO(beta=0.3), prompts) == pytest.approx(stronger)
    best = own_target(BestOfN(n=4), prompts)  # order is all that it sees
    assert best == pytest.approx(own_target(BestOfN(n=4), laboratory.trained))
    target, log_reference = own_target(IPO(beta=0.1), prompts), prompts.log_reference
    assert target is not None and np.isfinite(kl(target, log_reference)).all()


def test_on_a_budget_only_held_out_prompts_are_held_to_the_target(budget: Laboratory, small_world: Any) -> None:
    found = list(budget.measured(small_world.bench.sft, DPO(beta=0.3)))
    count = len(budget.held_out.combinations)
    assert all("exact_learning_error" in values for _, values in found[:count])
    assert not any("exact_learning_error_trained" in values for _, values in found[count:])


def test_without_noise_no_log_ratio_is_large_enough(small_world: Any) -> None:
    start, sft = small_world.start, small_world.bench.sft
    prompts = Laboratory(start.suite.data.world, start.backbone, sft, unlimited=False, noise=0.0).trained
    for method in (DPO(), IPO(), CPL(), CPL(bias=1.0), CPL(bias=1.0, to_reference=False)):
        assert own_target(method, prompts) is None
    assert own_target(BestOfN(n=4), prompts) is not None
