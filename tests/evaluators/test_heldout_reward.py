"""The linear reward model: it learns what embeddings tell, as Bradley-Terry, and keeps the lineage of its labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from alignarena.core.contract import Rows
from alignarena.core.errors import RunFailed
from alignarena.evaluators.heldout_reward import LinearRewardModel, linear_reward_model

ENCODER: Any = None


@dataclass
class Embeds:
    """A lab that embeds a text as its counts of letters."""

    def embed(self, policy: Any, rows: Rows) -> Rows:
        counts = [[float(text.count(letter)) for letter in "abc"] for text in rows["completion"]]
        return Dataset.from_dict({**rows.to_dict(), "embedding": counts})


LAB: Any = Embeds()


def rankings(count: int = 60, noise: float = 0.0, clusters: int = 12) -> Rows:
    """Rank random words: an ``a`` is worth 1, a ``b`` is worth -1, a ``c`` nothing."""
    generator = np.random.default_rng(0)
    rows = []
    for i in range(count):
        texts = ["".join(generator.choice(list("abc"), size=6)) for _ in range(3)]
        worth = [text.count("a") - text.count("b") + noise * generator.gumbel() for text in texts]
        ranks = [1 + sum(other > one for other in worth) for one in worth]
        rows.append({"prompt_id": f"p{i}", "prompt": "x", "cluster": f"c{i % clusters}", "completions": texts,
                     "ranks": ranks, "lineage": ["letters"]})  # fmt: skip
    return Dataset.from_list(rows)


def scores(model: LinearRewardModel, *texts: str) -> list[float]:
    rows = Dataset.from_list([{"prompt_id": "p", "prompt": "x", "completion": text} for text in texts])
    return model.score(rows, LAB)


def test_it_finds_what_is_preferred() -> None:
    model = linear_reward_model(ENCODER, rankings(), LAB)
    a, c, b = scores(model, "aaa", "ccc", "bbb")
    assert a > c > b
    assert model.lineage == {"letters"}


def test_its_scores_are_log_odds() -> None:
    model = linear_reward_model(ENCODER, rankings(count=1500, noise=1.0, clusters=50), LAB)
    a, b = scores(model, "a", "b")
    assert a - b == pytest.approx(2.0, abs=0.25)  # what the annotator's noise of 1 makes of a difference of 2


def test_the_order_of_a_ranking_changes_nothing() -> None:
    def turned(row: dict[str, Any]) -> dict[str, Any]:
        return {**row, "completions": row["completions"][::-1], "ranks": row["ranks"][::-1]}

    rows = rankings()
    other = Dataset.from_list([turned(row) for row in rows.to_list()])
    one, two = (linear_reward_model(ENCODER, each, LAB).weights for each in (rows, other))
    assert one == pytest.approx(two, rel=1e-2, abs=1e-2)


def test_one_cluster_and_a_feature_without_spread_will_do() -> None:
    rows = [{"prompt_id": "p", "prompt": "x", "cluster": "c", "completions": ["a", "b"], "ranks": [1, 2]}]
    model = linear_reward_model(ENCODER, Dataset.from_list(rows), LAB)
    a, b = scores(model, "a", "b")
    assert a > b and model.weights[2] == 0.0 and model.lineage == frozenset()


def test_ties_alone_teach_nothing() -> None:
    rows = [{"prompt_id": "p", "prompt": "x", "cluster": "c", "completions": ["a", "b"], "ranks": [1, 1]}]
    with pytest.raises(RunFailed, match="tied"):
        linear_reward_model(ENCODER, Dataset.from_list(rows), LAB)
