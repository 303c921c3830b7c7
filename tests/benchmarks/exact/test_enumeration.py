"""The enumerated distributions are those of the lab, which computes them row by row on another path."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from alignarena.core.contract import Rows, Schedule
from alignarena.core.feedback import Standardised
from alignarena.harness.policy import AdapterPolicy
from alignarena.methods.parts.reward_losses import KWiseRewardLoss
from alignarena.methods.parts.rows import rankings


def _places(prompts: Any, rows: Rows) -> tuple[Any, Any]:
    """Return which prompt and which leaf each sampled row is."""
    leaves, which = prompts.world.leaves, {row["prompt"]: place for place, row in enumerate(prompts.rows)}
    ids = np.full((len(rows), leaves.length), leaves.tokens + 1)
    for row, sampled in zip(ids, rows["completion_ids"][:], strict=True):
        row[: len(sampled)] = sampled
    return [which[prompt] for prompt in rows["prompt"][:]], leaves.place(ids)


@pytest.fixture(scope="module")
def lab(small_world: Any) -> Any:
    return small_world.start.lab()


@pytest.fixture(scope="module")
def sampled(small_world: Any, lab: Any) -> Rows:
    """Completions of the trained prompts by the SFT policy, some of them cut."""
    rows = lab.sample(small_world.bench.sft, Dataset.from_list(small_world.laboratory.trained.rows), 16, stream="a")
    assert set(rows["finish_reason"]) == {"stop", "length"}
    return rows


@pytest.mark.parametrize("name", ["base", "sft"])
def test_it_gives_the_log_probs_of_the_lab(small_world: Any, lab: Any, sampled: Rows, name: str) -> None:
    prompts = small_world.laboratory.trained
    policy = {"base": AdapterPolicy(small_world.start.backbone.digest), "sft": small_world.bench.sft}[name]
    which, leaf = _places(prompts, sampled)
    tokens = prompts.enumeration.token_logps(policy)[which, leaf]
    for found, expected in zip(tokens, lab.logps(policy, sampled)["logps"], strict=True):
        assert found[: len(expected)] == pytest.approx(expected, abs=1e-5)
        assert not found[len(expected) :].any()
    assert prompts.enumeration.logps(policy)[which, leaf] == pytest.approx(tokens.sum(1))


def test_sampling_is_by_its_distribution(small_world: Any, lab: Any) -> None:
    prompts, n = small_world.laboratory.held_out, 4000
    rows = lab.sample(small_world.bench.sft, Dataset.from_list(prompts.rows[:2]), n, stream="many")
    which, leaf = _places(prompts, rows)
    expected = np.exp(prompts.log_reference[:2])
    counts = np.zeros_like(expected)
    np.add.at(counts, (which, leaf), 1)
    # for 85 cells the sum of (observed - expected)^2 / expected is 84 on average, its deviation 13
    chi2 = ((counts - n * expected) ** 2 / (n * expected)).sum(1)
    assert (counts.sum(1) == n).all() and (chi2 < 84 + 5 * 13).all()


def test_it_gives_the_scores_of_the_lab(small_world: Any, lab: Any, sampled: Rows) -> None:
    prompts = small_world.laboratory.trained
    ranked = rankings(sampled).to_list()
    rows = [{**row, "ranks": list(range(1, len(row["completions"]) + 1))} for row in ranked]  # so that a head moves
    schedule = Schedule(learning_rate=1e-2, num_train_epochs=2)
    model = lab.fit_reward_model(small_world.bench.sft, Dataset.from_list(rows), KWiseRewardLoss(), schedule)
    which, leaf = _places(prompts, sampled)
    for scorer in (model, Standardised(model, mean=0.5, std=2.0)):
        expected = lab.score(sampled, scorer)["score"][:]
        assert prompts.enumeration.scores(scorer)[which, leaf] == pytest.approx(expected, abs=1e-5)
        assert np.std(expected) > 0.01


def test_blocks_change_nothing(small_world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = small_world.laboratory.trained
    whole = prompts.enumeration.logps(small_world.bench.sft)
    monkeypatch.setattr("alignarena.benchmarks.exact.enumeration._TOKENS", 100)
    assert prompts.enumeration.logps(small_world.bench.sft) == pytest.approx(whole, abs=1e-5)
