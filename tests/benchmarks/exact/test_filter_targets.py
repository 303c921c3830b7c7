"""Targets of methods that filter their samples, and of chains, in an exact world."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from alignarena.benchmarks.exact.laboratory import Laboratory, own_target
from alignarena.evaluators.exact import targets
from alignarena.evaluators.exact.optimum import expectation, kl, tilted
from alignarena.methods.arms import ppo_then_rs, rs_then_ppo
from alignarena.methods.best_of_n import BestOfN
from alignarena.methods.hir import HIR
from alignarena.methods.parts.composition import Chain
from alignarena.methods.ppo import PPO
from alignarena.methods.preferred_ft import PreferredFT
from alignarena.methods.rejection_sampling import RejectionSampling
from alignarena.methods.rest import ReST

SHARE = ReST(thresholds=(0.5, 0.8), grow_steps=1, demonstrations=False)


@pytest.fixture(scope="module")
def laboratory(small_world: Any) -> Laboratory:
    """In the limit setting."""
    return small_world.laboratory  # type: ignore[no-any-return]


def test_rest_aims_at_a_share_of_all_trained_samples(laboratory: Laboratory) -> None:
    trained, held_out = laboratory.trained, laboratory.held_out
    target = own_target(SHARE, trained)
    assert target is not None
    kept = np.isfinite(target)
    starved = kl(target, trained.log_reference) < 1e-12
    finished = np.exp(trained.log_reference) * trained.world.leaves.finished
    edge = trained.gold[kept & ~starved[:, None]].min()
    above = (finished * (trained.gold >= edge)).sum() / finished.sum()
    assert above - (finished * (trained.gold == edge)).sum() / finished.sum() < 0.2 <= above + 1e-12
    assert not kept[:, ~trained.world.leaves.finished][~starved].any()
    asked = own_target(SHARE, held_out)
    assert asked is not None
    moved = kl(asked, held_out.log_reference) > 1e-12
    assert (held_out.gold >= edge)[moved][np.isfinite(asked[moved])].all()  # the same score as on trained prompts
    assert own_target(replace(SHARE, grow_steps=3), trained) == pytest.approx(target)  # the filter changes it no more


def test_rest_has_no_target_where_its_data_is_no_distribution(laboratory: Laboratory) -> None:
    for method in (replace(SHARE, per_prompt=True), replace(SHARE, demonstrations=True)):
        assert own_target(method, laboratory.trained) is None


def test_imitating_winners_leads_no_further_than_twice_the_data(laboratory: Laboratory) -> None:
    trained = laboratory.trained
    target = own_target(PreferredFT(), trained)
    assert target is not None and (target - trained.log_data).max() < np.log(2.0) + 0.1
    gained = expectation(target, trained.gold) - expectation(trained.log_data, trained.gold)
    assert (gained > 0).all()


def test_a_chain_aims_where_its_second_stage_does_from_the_first_ones_target(laboratory: Laboratory) -> None:
    trained = laboratory.trained
    finished = trained.world.leaves.finished
    chain = rs_then_ppo()
    sampler, trainer = chain.first, chain.second
    assert isinstance(sampler, RejectionSampling) and isinstance(trainer, PPO)
    settings = (sampler.n, sampler.rounds, finished)
    reward = trained.rewarded - trainer.loss.missing_eos_penalty * ~finished
    best = targets.rejection_sampling(trained.log_reference, trained.rewarded, *settings)
    assert own_target(chain, trained) == pytest.approx(tilted(best, reward, trainer.loss.kl_coef))
    tuned = tilted(trained.log_reference, reward, trainer.loss.kl_coef)
    wanted = targets.rejection_sampling(tuned, trained.rewarded, *settings)
    assert own_target(ppo_then_rs(), trained) == pytest.approx(wanted)
    assert own_target(Chain(BestOfN(), HIR()), trained) is None


def test_what_is_learnt_of_a_budget_is_on_the_scale_of_the_sft_policy(small_world: Any) -> None:
    start, sft = small_world.start, small_world.bench.sft
    prompts = Laboratory(start.suite.data.world, start.backbone, sft, unlimited=False, noise=0.5).trained
    moved = replace(prompts, start=tilted(prompts.log_sft, prompts.gold, 1.0))
    assert moved.rewarded == pytest.approx(prompts.rewarded) and moved.log_data == pytest.approx(prompts.log_data)
    assert kl(moved.log_reference, prompts.log_reference).min() > 0
