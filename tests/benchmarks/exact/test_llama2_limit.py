"""With exact feedback on both axes, Llama 2's recipe comes near its own target in the world of 85 completions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from alignarena.benchmarks.exact.laboratory import Laboratory, own_target
from alignarena.core.contract import Schedule
from alignarena.core.feedback import UNSAFE_BELOW
from alignarena.methods.llama2 import Llama2
from alignarena.methods.parts.two_rewards import WhitenedPPOLoss

LOSS = WhitenedPPOLoss(kl_coef=1.0, missing_eos_penalty=0.0, vf_coef=0.5, cliprange_value=10.0)
METHOD = Llama2(
    versions=2,
    n=4,
    schedule=Schedule(learning_rate=8e-3, batch_size=512, num_train_epochs=20, lr_scheduler_type="linear"),
    loss=LOSS,
    updates=60,
    prompts_per_update=32,
    ppo_schedule=Schedule(learning_rate=2e-3, batch_size=32, num_train_epochs=2, lr_scheduler_type="linear"),
)


@pytest.mark.slow
def test_learns_its_own_target(small_world: Any) -> None:
    small_world.sweep.methods["llama2"] = METHOD
    run = small_world.run("llama2")
    assert run.error <= 0.05


def test_its_target_is_that_of_its_parts(small_world: Any) -> None:
    trained, held_out = small_world.laboratory.trained, small_world.laboratory.held_out
    unsafe = np.exp(trained.log_sft)[trained.gold_on("harmless") < UNSAFE_BELOW].sum() / len(trained.combinations)
    assert 0.01 < unsafe < 0.5  # both reward models have a say
    for prompts in (trained, held_out):
        target = own_target(METHOD, prompts)
        assert target is not None and np.exp(target).sum(1) == pytest.approx(1)
        assert np.isneginf(target[:, ~prompts.world.leaves.finished]).all()
    alone = own_target(replace(METHOD, versions=1), trained)
    assert not np.allclose(np.exp(alone), np.exp(own_target(METHOD, trained)), atol=0.05)  # type: ignore[arg-type]


def test_of_learnt_rewards_nothing_is_said(small_world: Any) -> None:
    start, sft = small_world.start, small_world.bench.sft
    budget = Laboratory(start.suite.data.world, start.backbone, sft, unlimited=False, noise=0.5)
    assert own_target(METHOD, budget.trained) is None
