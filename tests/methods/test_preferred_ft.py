"""Preferred-FT: the chosen completions of the annotator's pairs, as often as they were chosen."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from math import log2
from typing import Any

import pytest
from known_reward import trained_on

from alignarena.core.contract import Schedule
from alignarena.core.errors import RunFailed
from alignarena.methods.parts.imitation import ChosenLoss
from alignarena.methods.parts.rows import pairs
from alignarena.methods.preferred_ft import PreferredFT

FAST = Schedule(learning_rate=1e-2, batch_size=8)


def test_it_imitates_each_completion_as_often_as_it_was_chosen(toy_cell: Callable[..., Any]) -> None:
    cell = lab, task = toy_cell()
    policy, (rows,), _ = trained_on(cell, PreferredFT(trained_tokens=5_000, schedule=FAST))
    ranked = task.preferences["overall"].to_list()
    wanted: Counter[tuple[str, str]] = Counter()
    for row in ranked:
        for place, text in enumerate(row["completions"]):
            worse = [j for j, rank in enumerate(row["ranks"]) if rank > row["ranks"][place]]
            wanted[row["prompt_id"], text] += sum(row["completions"][j] != text for j in worse)
    assert Counter((row["prompt_id"], row["chosen"]) for row in rows) == +wanted
    assert lab.account.charged.labels == pytest.approx(8 * log2(24))
    assert [stage["verb"] for stage in lab.account.stages] == ["sample", "prefer", "fit"]
    chosen = [row for row in rows if row["chosen"]]

    def logps(model: Any) -> float:
        shown = task.prompts.from_list(
            [{**{key: row[key] for key in ("prompt_id", "prompt")}, "completion": row["chosen"],
              "completion_ids": row["chosen_ids"]} for row in chosen]
        )  # fmt: skip
        return sum(map(sum, lab.logps(model, shown)["logps"]))

    assert logps(policy) > logps(task.policy) + 1.0


def test_it_trains_on_the_tokens_it_is_given(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    each = lab.tokens(pairs(task.preferences["overall"]), ChosenLoss())
    PreferredFT(trained_tokens=4 * each, schedule=FAST).align(task, lab)
    assert lab.account.stages[-1]["ledger"]["trained_tokens"] == 4 * each


def test_identical_completions_and_ties_are_no_preference(toy_cell: Callable[..., Any]) -> None:
    cell = lab, task = toy_cell()
    row = {"prompt_id": "p0", "prompt": "w1 w2"}
    rows = [
        {**row, "completions": ["w3", "w3"], "ranks": [1, 2]},
        {**row, "completions": ["w4", "w5"], "ranks": [1, 1]},
        {**row, "completions": ["w6", "w7"], "ranks": [2, 1]},
    ]
    given = replace(task, preferences={"overall": task.prompts.from_list(rows)})
    _, (kept,), _ = trained_on((lab, given), PreferredFT(trained_tokens=1, schedule=FAST))
    assert [(one["chosen"], one["rejected"]) for one in kept] == [("w7", "w6")]
    nothing = replace(task, preferences={"overall": task.prompts.from_list(rows[:1])})
    with pytest.raises(RunFailed, match="nothing to learn from: both completions of each of 1 pairs are equal"):
        PreferredFT(schedule=FAST).align(nothing, cell[0])
