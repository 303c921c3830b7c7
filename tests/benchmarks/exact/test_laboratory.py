"""What the laboratory says of a policy, prompt by prompt, in either setting."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from alignarena.benchmarks.exact.laboratory import Laboratory, logps, own_target, scores
from alignarena.benchmarks.exact.text import GOAL, GRADES, prompt_rows
from alignarena.evaluators.exact import targets
from alignarena.evaluators.exact.gold import WorldGold
from alignarena.evaluators.exact.labeler import WorldLabeler
from alignarena.evaluators.exact.optimum import expectation, kl, tilted
from alignarena.evaluators.exact.ptx_target import ppo_ptx
from alignarena.evaluators.exact.reviser import revision
from alignarena.methods.best_of_n import BestOfN, BestOfNPolicy
from alignarena.methods.constitutional_ai import ConstitutionalAI
from alignarena.methods.cpl import CPL
from alignarena.methods.d_rlaif import DirectRLAIF
from alignarena.methods.dpo import DPO
from alignarena.methods.hir import HIR, InstructedSFT
from alignarena.methods.ipo import IPO
from alignarena.methods.parts.instructions import Instructed, instructed
from alignarena.methods.parts.policy_gradient import PPOLoss
from alignarena.methods.parts.reinforce import ReinforceLoss
from alignarena.methods.ppo import PPO
from alignarena.methods.prompted import Prompted
from alignarena.methods.rejection_sampling import RejectionSampling
from alignarena.methods.rlaif import RLAIF
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


def test_a_policy_under_an_instruction_samples_what_is_computed(laboratory: Laboratory, small_world: Any) -> None:
    prompts, n = laboratory.held_out, 2000
    policy = Instructed(small_world.bench.sft, GRADES[-1])
    computed = logps(policy, prompts)
    assert np.exp(computed).sum(1) == pytest.approx(1, abs=1e-6)
    lab = small_world.start.lab()
    drawn = lab.sample(policy, Dataset.from_list(prompts.rows[:2]), n, stream="instructed")
    ids = np.full((2 * n, prompts.world.length), prompts.world.tokens + 1)
    for row, sampled in zip(ids, drawn["completion_ids"][:], strict=True):
        row[: len(sampled)] = sampled
    leaves = prompts.world.leaves.place(ids).reshape(2, n)
    for place in range(2):
        expected = n * np.exp(computed[place])
        counts = np.bincount(leaves[place], minlength=len(expected))
        assert ((counts - expected) ** 2 / expected).sum() < 84 + 5 * 13  # as in test_enumeration
    assert [sum(one) for one in lab.logps(policy, drawn)["logps"]] == pytest.approx(
        computed[np.repeat([0, 1], n), leaves.ravel()], abs=1e-4
    )
    best = BestOfNPolicy(policy, WorldGold(prompts.world), 4)  # type: ignore[arg-type]
    assert logps(best, prompts) == pytest.approx(targets.best_of_n(computed, prompts.gold, 4))


def test_a_task_is_told_in_words_that_the_world_keeps_free(small_world: Any) -> None:
    start = small_world.start
    task, tokens = start.task(small_world.bench.sft, start.lab()), start.backbone.tokens
    assert (task.goal, task.grades) == (GOAL, GRADES)
    for word in (task.goal, *task.grades):
        told = {tokens.prompt_ids(row["prompt"]) for row in instructed(task.prompts, word).to_list()}
        assert {len(ids) for ids in told} == {5} and len(told) == len(small_world.laboratory.trained.combinations)
        assert {ids[0] for ids in told} == set(tokens.tokenizer(word)["input_ids"])


def test_what_only_reads_an_instruction_is_its_own_target(laboratory: Laboratory, small_world: Any) -> None:
    for method, word in ((Prompted(), GOAL), (InstructedSFT(), GRADES[-1])):
        policy = Instructed(small_world.bench.sft, word)
        assert own_target(method, laboratory.trained) == pytest.approx(logps(policy, laboratory.trained))


def test_hir_aims_at_what_earned_the_best_grade_where_it_sampled(laboratory: Laboratory, small_world: Any) -> None:
    plain = HIR(rounds=1, entropy_coef=0.0, label_smoothing=0.0, grade_within="round")
    trained, held_out = laboratory.trained, laboratory.held_out
    start = logps(Instructed(small_world.bench.sft, GRADES[-1]), trained)
    target = own_target(plain, trained)
    assert target is not None
    edge = trained.gold[np.isfinite(target)].min()
    finished = np.exp(start) * trained.world.leaves.finished
    assert (finished * (trained.gold >= edge)).sum() >= finished.sum() / 3 > (finished * (trained.gold > edge)).sum()
    asked = own_target(plain, held_out)
    assert asked is not None and held_out.gold[np.isfinite(asked)].min() >= edge  # not a share of its own samples
    further = own_target(replace(plain, rounds=2), trained)
    assert further is not None and expectation(further, trained.gold).mean() > expectation(target, trained.gold).mean()
    for fields in ({"label_smoothing": 0.2}, {"entropy_coef": 0.1}, {"use_checker": True}):
        assert own_target(replace(plain, **fields), trained) is None  # type: ignore[arg-type]
    assert own_target(replace(plain, alpha=0.0, label_smoothing=0.2), trained) == pytest.approx(target)


def test_hir_aims_at_the_upper_ranks_where_it_grades_a_prompts_own_samples(laboratory: Laboratory) -> None:
    plain, trained = HIR(rounds=1, alpha=0.0, entropy_coef=0.0), laboratory.trained
    target = own_target(plain, trained)
    assert target is not None
    assert (expectation(target, trained.gold) > expectation(trained.log_reference, trained.gold)).all()
    assert np.isneginf(target[:, ~trained.world.leaves.finished]).all()
    for moved in (replace(plain, alpha=1.0), replace(plain, rounds=2), replace(plain, entropy_coef=0.1)):
        assert own_target(moved, trained) is None
    assert own_target(replace(plain, rounds=2, replay=False), trained) is not None


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


def test_what_ai_feedback_nears_is_the_best_policy_for_the_labelers_opinion(laboratory: Laboratory) -> None:
    prompts = laboratory.trained
    weight = 0.3 / 1.3  # REINFORCE weighs the score by the rest: strength .3
    loss = ReinforceLoss(kl_coef=weight, missing_eos_penalty=0.0)
    optimum = tilted(prompts.log_reference, prompts.gold, 0.3)
    assert own_target(DirectRLAIF(loss), prompts) == pytest.approx(optimum)
    assert own_target(RLAIF(reinforce=loss), prompts) == pytest.approx(optimum)
    ppo = RLAIF(optimiser="ppo", ppo=PPOLoss(kl_coef=0.3, missing_eos_penalty=0.0))
    assert own_target(ppo, prompts) == pytest.approx(optimum)
    assert own_target(replace(ppo, soft=False), prompts) is None
    scaled = tilted(prompts.log_reference, prompts.standardised(prompts.gold), 0.3)
    assert own_target(ppo, replace(prompts, unlimited=False)) == pytest.approx(scaled)
    noisy = replace(prompts, world=replace(prompts.world, labeler_noise=1.0))
    misled = own_target(DirectRLAIF(loss), noisy)
    assert misled is not None and kl(misled, optimum).min() > 0.1
    assert scores(WorldLabeler(noisy.world), noisy) == pytest.approx(noisy.opinion)


def test_constitutional_ai_nears_the_opinion_from_what_revisions_leave(laboratory: Laboratory) -> None:
    prompts, finished = laboratory.trained, laboratory.trained.world.leaves.finished
    loss = PPOLoss(kl_coef=0.3, missing_eos_penalty=0.0)
    ended = np.where(finished, np.exp(prompts.log_sft), 0.0)
    ended /= ended.sum(1, keepdims=True)
    once, twice = np.zeros_like(ended), np.zeros_like(ended)
    places = range(prompts.world.length - 1)
    for row, combination in enumerate(prompts.combinations):  # every leaf sent where each principle sends it
        moves = [revision(prompts.world, combination, place) for place in places]
        for move in moves:
            np.add.at(once[row], move, ended[row] / len(moves))
        for move in moves:
            np.add.at(twice[row], move, once[row] / len(moves))
    with np.errstate(divide="ignore"):
        wanted = {1: np.log(once), 2: np.log((once + twice) / 2)}
    for steps, imitated in wanted.items():
        found = own_target(ConstitutionalAI(revisions=steps, loss=loss), prompts)
        assert found is not None
        assert np.exp(found) == pytest.approx(np.exp(tilted(imitated, prompts.gold, 0.3)))
    budget = own_target(ConstitutionalAI(revisions=1, loss=loss), replace(prompts, unlimited=False))
    scaled = tilted(wanted[1], prompts.standardised(prompts.gold), 0.3)
    assert budget is not None and np.exp(budget) == pytest.approx(np.exp(scaled))
    assert own_target(ConstitutionalAI(loss=replace(loss, gamma=0.9)), prompts) is None


def test_ppo_ptx_weighs_the_demonstrations_of_the_world(laboratory: Laboratory) -> None:
    prompts = laboratory.trained
    assert np.exp(prompts.log_demonstrations).sum(1) == pytest.approx(1)
    loss = PPOLoss(kl_coef=0.3, missing_eos_penalty=0.5, ptx_coef=0.2, whiten_advantages=False)
    penalised = prompts.gold - 0.5 * ~prompts.world.leaves.finished
    expected = ppo_ptx(prompts.log_reference, penalised, 0.3, 0.2, prompts.log_demonstrations)
    assert own_target(PPO(loss=loss), prompts) == pytest.approx(expected)
    plain = own_target(PPO(loss=replace(loss, ptx_coef=0.0)), prompts)
    assert plain == pytest.approx(tilted(prompts.log_reference, penalised, 0.3))
    assert own_target(PPO(loss=replace(loss, whiten_advantages=True)), prompts) is None


def test_dpo_without_a_reference_model_has_plain_cpls_target(laboratory: Laboratory) -> None:
    prompts = laboratory.trained
    found = own_target(DPO(beta=0.4, reference_free=True), prompts)
    assert found == pytest.approx(own_target(CPL(alpha=0.4, bias=1.0, to_reference=False), prompts))
    assert found == pytest.approx(targets.cpl(prompts.gold, 0.4))
