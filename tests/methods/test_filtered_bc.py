"""Filtered behaviour cloning: one draw, and the best eighth of it."""

from collections.abc import Callable
from dataclasses import replace
from math import floor
from typing import Any

from known_reward import Known, Untied, drawn, trained_on

from alignarena.core.registry import find
from alignarena.methods.filtered_bc import filtered_bc
from alignarena.methods.rest import ReST


def test_it_keeps_the_best_eighth_of_all_samples(toy_cell: Callable[..., Any]) -> None:
    lab, _ = cell = toy_cell()
    _, (rows,), _ = trained_on(cell, replace(filtered_bc(), reward_model=Known(scorer=Untied())))
    assert [stage["verb"] for stage in lab.account.stages] == ["sample", "score", "fit"]
    assert lab.account.charged.completions == 8 * 8
    every = drawn(cell, 8)
    scores = sorted(Untied().score(type(cell[1].prompts).from_list(every), None))
    assert sorted(row["score"] for row in rows) == scores[floor(0.875 * len(every)) :]


def test_it_is_rest_with_one_step_of_each_kind() -> None:
    method = find("filtered_bc").build()
    assert isinstance(method, ReST)
    assert (method.grow_steps, len(method.thresholds), method.demonstrations) == (1, 1, False)
