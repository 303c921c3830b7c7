"""With exact and unlimited feedback every method comes near its own target, in a world of 85 completions a prompt."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from numpy.typing import NDArray
from safetensors.numpy import load_file
from scipy.stats import chisquare

from alignarena.benchmarks.suite import build_method, load_suite
from alignarena.evaluators.exact.world import Floats

ANSWERS = 400  # drawn from best-of-n for each of two prompts


@pytest.mark.parametrize("name", ["dpo", "ppo"])
def test_comes_near_the_optimum(small_world: Any, name: str) -> None:
    run = small_world.clean(name)
    assert run.efficiency >= 0.95
    assert run.held_out["j_efficiency"] >= run.efficiency - 0.05


@pytest.mark.parametrize(
    "name", ["dpo", "ipo", "cpl", "cpl_kl", "cpl_plain", "kto", "simpo", "orpo", "preferred_ft"]
)
def test_pairs_are_fresh_at_every_step(name: str) -> None:
    method: Any = build_method(name, load_suite("exact/limit").methods[name])
    assert method.schedule.num_train_epochs == 1


@pytest.mark.slow  # as `alignarena run exact` does, in the large world
@pytest.mark.parametrize("name", ["ipo", "cpl_plain", "rejection_sampling"])
def test_learns_its_own_target(small_world: Any, name: str) -> None:
    assert small_world.clean(name).error <= 0.05


def test_cpl_on_log_ratios_without_bias_is_dpo_all_along(small_world: Any) -> None:
    dpo, cpl = small_world.clean("dpo"), small_world.clean("cpl_kl")
    np.testing.assert_allclose(fitted_losses(cpl), fitted_losses(dpo), rtol=0, atol=1e-6)
    weights, others = (load_file(run.policy.folder / "model.safetensors") for run in (dpo, cpl))
    for name, values in weights.items():
        np.testing.assert_allclose(others[name], values, rtol=0, atol=1e-6, err_msg=name)


def test_best_of_n_is_exact(small_world: Any) -> None:
    assert small_world.clean("best_of_n").trained["exact_learning_error"] == pytest.approx(0, abs=1e-6)


def test_best_of_n_samples_what_is_computed(small_world: Any) -> None:
    run, trained = small_world.clean("best_of_n"), small_world.laboratory.trained
    drawn = run.lab.sample(run.policy, Dataset.from_list(trained.rows[:2]), ANSWERS, stream="test").to_list()
    leaves = np.array([place(small_world, row["completion_ids"]) for row in drawn]).reshape(2, ANSWERS)
    for prompt in range(2):
        assert fit_of(leaves[prompt], run.log_policy[prompt]) > 1e-3
        assert fit_of(leaves[prompt], trained.log_reference[prompt]) < 1e-6  # the test can tell


@pytest.mark.parametrize("name", ["best_of_n", "dpo", "cpl_kl", "ppo"])
def test_a_distribution_sums_to_one(small_world: Any, name: str) -> None:
    np.testing.assert_allclose(np.exp(small_world.clean(name).log_policy).sum(1), 1, atol=1e-6)


def fitted_losses(run: Any) -> list[float]:
    """The loss of each step of a run's fit."""
    lines = (run.policy.folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def place(small_world: Any, ids: list[int]) -> int:
    """Where a sampled completion stands among the leaves."""
    leaves = small_world.start.suite.data.world.leaves
    padded = [*ids, *[leaves.tokens + 1] * (leaves.length - len(ids))]
    return int(leaves.place(np.array([padded]))[0])


def fit_of(drawn: NDArray[np.int64], log_expected: Floats) -> float:
    """Pearson's p of draws from one prompt's distribution, leaves expected less than 5 times taken together."""
    expected = ANSWERS * np.exp(log_expected)
    counts, common = np.bincount(drawn, minlength=len(expected)), expected >= 5
    both = [np.append(values[common], values[~common].sum()) for values in (counts, expected)]
    return float(chisquare(both[0], both[1] * both[0].sum() / both[1].sum()).pvalue)
