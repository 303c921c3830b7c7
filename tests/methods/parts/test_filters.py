"""Filters: what is kept, and what is said of it, worked out by hand."""

from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from alignarena.core.contract import Rows
from alignarena.methods.parts.filters import (
    coverage,
    informative,
    joined,
    own_quantiles,
    quantiles,
    told_apart,
    where,
)

SCORES = {"p0": [0.1, 0.4, 0.4, 0.9], "p1": [0.2, 0.2], "p2": [0.3]}


def rows(scores: dict[str, list[float]] = SCORES) -> Rows:
    return Dataset.from_list(
        [
            {"prompt_id": name, "prompt": name, "sample": i, "completion": f"{one}", "score": one}
            for name, group in scores.items()
            for i, one in enumerate(group)
        ]
    )


def test_a_quantile_is_the_share_that_is_no_better() -> None:
    assert quantiles([1.0, 2.0, 2.0, 5.0], [2.0, 1.0, 5.0, 2.0]).tolist() == [0.25, 0.75, 0.75, 1.0]
    assert quantiles([0.0, 1.5, 9.0], [1.0, 2.0]).tolist() == [0.0, 0.5, 1.0]  # of scores that were not among them


def test_own_quantiles_are_within_a_prompt() -> None:
    assert own_quantiles(rows(), [0.5]).tolist() == [0.25, 0.75, 0.75, 1.0, 1.0, 1.0, 1.0]
    shuffled = rows().select([6, 3, 1, 5, 0, 2, 4])  # rows of a prompt need not stand together
    assert own_quantiles(shuffled, [0.5]).tolist() == [1.0, 1.0, 0.75, 1.0, 0.25, 0.75, 1.0]


def test_the_only_demonstration_of_a_prompt_is_not_the_best_of_itself() -> None:
    shown = [{"prompt_id": f"d{score}", "prompt": "x", "completion": "y", "score": score} for score in (0.1, 0.6)]
    shown.append({"prompt_id": "p0", "prompt": "p0", "completion": "z", "score": 0.5})  # of a prompt that was sampled
    both = joined(rows(), Dataset.from_list(shown))
    assert own_quantiles(both, [0.2, 0.4, 0.8, 0.9])[-3:].tolist() == [0.0, 0.5, 0.8]


def test_a_threshold_is_strict() -> None:
    scores = [0.0, 0.5, 0.5, 1.0]
    kept = {tau: (quantiles(scores, scores) > tau).tolist() for tau in (-1.0, 0.25, 0.75, 0.99, 1.0)}
    assert kept == {
        -1.0: [True] * 4,
        0.25: [False, True, True, True],
        0.75: [False, False, False, True],
        0.99: [False, False, False, True],
        1.0: [False] * 4,
    }


def test_equal_rewards_all_pass_below_one() -> None:
    assert quantiles([0.7] * 3, [0.7] * 3).tolist() == [1.0, 1.0, 1.0]
    assert informative(rows({"p0": [0.7] * 3, "p1": [0.7]})) == 0.0


def test_informative_is_the_share_of_prompts_whose_scores_differ() -> None:
    assert informative(rows()) == pytest.approx(1 / 3)
    shown = Dataset.from_list([{"prompt_id": "d", "prompt": "x", "completion": "y", "score": 0.3}])
    assert informative(joined(rows(), shown)) == pytest.approx(1 / 3)  # a demonstration is no prompt sampled from


def test_coverage_counts_prompts_and_demonstrations_apart() -> None:
    demonstrations = Dataset.from_list([{"prompt_id": f"d{i}", "prompt": "x", "completion": "y"} for i in range(2)])
    assert coverage(rows(), np.array([0, 0, 1, 1, 0, 0, 0], dtype=bool)) == pytest.approx(
        {"kept_rows": 2 / 7, "kept_prompts": 1 / 3}
    )
    kept = np.array([0, 0, 0, 0, 1, 1, 1, 1, 0], dtype=bool)
    assert coverage(joined(rows(), demonstrations), kept) == pytest.approx(
        {"kept_rows": 4 / 9, "kept_prompts": 2 / 3, "kept_demonstrations": 1 / 2}
    )
    nothing = coverage(rows(), np.zeros(7, dtype=bool))
    assert nothing == {"kept_rows": 0.0, "kept_prompts": 0.0}


def test_joined_rows_keep_sampled_ids_and_have_one_set_of_columns() -> None:
    sampled: list[dict[str, Any]] = [
        {"prompt_id": "p", "prompt": "x", "sample": 0, "completion": "a", "prompt_ids": [1], "completion_ids": [2, 3],
         "finish_reason": "stop", "logps": [-1.0, -1.0]}
    ]  # fmt: skip
    both = joined(Dataset.from_list(sampled), Dataset.from_list([{"prompt_id": "q", "prompt": "y", "completion": "b"}]))
    assert both["completion_ids"][:] == [[2, 3], None] and both["prompt_ids"][:] == [[1], None]
    assert both["sample"][:] == [0, None] and both["finish_reason"][:] == ["stop", "stop"]
    assert both["completion"][:] == ["a", "b"] and "logps" not in both.column_names


def test_where_keeps_the_order() -> None:
    kept = np.array([0, 1, 0, 1, 0, 0, 1], dtype=bool)
    assert where(rows(), kept)["score"][:] == [0.4, 0.9, 0.3]


def test_identical_completions_are_no_preference() -> None:
    pairs = Dataset.from_list([{"chosen": "a", "rejected": "a"}, {"chosen": "a", "rejected": "b"}])
    assert told_apart(pairs).to_list() == [{"chosen": "a", "rejected": "b"}]
