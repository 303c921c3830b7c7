"""Pairs of aligned answers: which there are, what scorers say of them, and how right that is."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from alignarena.results.scored_pairs import scored_pairs


def scores(**methods: dict[str, list[float | None]]) -> pd.DataFrame:
    """Return tidy scores of prompts p0, p1, ..., one sample each."""
    rows: list[dict[str, Any]] = [
        {"method": method, "seed": 0, "prompt_id": f"p{i}", "sample": 0, "cluster": f"c{i}", "metric": metric,
         "value": value}
        for method, metrics in methods.items() for metric, values in metrics.items() for i, value in enumerate(values)
    ]  # fmt: skip
    return pd.DataFrame(rows).astype({"value": float})


DPO: dict[str, list[float | None]] = {
    "gold": [0.9, 0.2, 0.5], "proxy_reward": [2, 1, 9], "heldout_reward": [1, -1, 9], "ai_judge": [0.5, 0.1, 9],
    "length": [9, 4, 9],
}  # fmt: skip
PPO: dict[str, list[float | None]] = {
    "gold": [0.3, 0.6, 0.5], "proxy_reward": [3, 2, 0], "heldout_reward": [0, 1, 0], "ai_judge": [None] * 3,
    "length": [5, 6, 0],
}  # fmt: skip


def test_a_pair_is_two_answers_that_gold_tells_apart() -> None:
    pairs = scored_pairs(scores(dpo=DPO, ppo=PPO))
    assert pairs.gold == pytest.approx([0.6, 0.4]) and list(pairs.clusters) == ["c0", "c1"]
    assert {name: values.tolist() for name, values in pairs.differences.items()} == {
        "proxy_reward": [-1.0, 1.0], "heldout_reward": [1.0, 2.0], "length": [4, 2]
    }  # fmt: skip
    assert len(scored_pairs(scores(dpo=DPO)).gold) == 0


def test_accuracy_and_shared_errors_by_hand() -> None:
    gold: list[float | None] = [1, 1, 1, 1]
    first: dict[str, list[float | None]] = {
        "gold": gold, "proxy_reward": [1, 1, -1, -1], "heldout_reward": [1, 0, 1, -1], "ai_judge": [1, None, 1, 1],
    }  # fmt: skip
    pairs = scored_pairs(scores(a=first, b={name: [0, 0, 0, 0] for name in first}))
    assert pairs.accuracy("proxy_reward").mean == 0.5
    assert pairs.accuracy("heldout_reward").mean == pytest.approx((1 + 0.5 + 1 + 0) / 4)
    assert pairs.shared_errors("heldout_reward") == pytest.approx(np.corrcoef([1, 0.5, 1, 0], [1, 1, 0, 0])[0, 1])
    assert pairs.known("ai_judge").tolist() == [True, False, True, True]
    assert pairs.accuracy("ai_judge").mean == 1.0 and math.isnan(pairs.shared_errors("ai_judge"))  # it never errs


def test_what_was_not_scored_is_not_known() -> None:
    pairs = scored_pairs(scores(dpo=DPO, ppo=PPO))
    assert not pairs.known("ai_judge").any() and math.isnan(pairs.accuracy("ai_judge").mean)
    without = {name: values for name, values in DPO.items() if name != "gold"}
    assert len(scored_pairs(scores(dpo=without, ppo=without)).gold) == 0


def test_samples_and_seeds_are_paired_with_their_own() -> None:
    one = scores(dpo=DPO, ppo=PPO)
    both = pd.concat([one.assign(seed=seed, sample=sample) for seed in (0, 1) for sample in (0, 1)])
    assert len(scored_pairs(both).gold) == 8
