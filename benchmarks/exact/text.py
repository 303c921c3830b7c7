"""Rows drawn from the stated distributions of an exact world."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from alignarena.core.seeds import generator
from alignarena.evaluators.exact.world import Floats, World, prompt_text

Combination = tuple[int, ...]
INSTRUCTIONS = tuple(f"<i{number}>" for number in range(8))  # words reserved for what methods put before a prompt
GOAL, GRADES = INSTRUCTIONS[0], INSTRUCTIONS[1:4]  # a task's; they mean nothing until a method trains under them


def prompt_rows(combinations: Sequence[Combination], count: int, split: str) -> list[dict[str, Any]]:
    """Return ``count`` rows of each combination: the same prompt, asked again under an id of its own."""
    return [_row(one, f"{split}/{_name(one)}/{i}") for i in range(count) for one in combinations]


def drawn_rows(
    world: World, combinations: Sequence[Combination], count: int, split: str, logits: Callable[[Combination], Floats]
) -> list[dict[str, Any]]:
    """Return the same rows with a ``completion`` drawn from a chain, and its ids."""
    drawn = {c: _draws(world, logits(c), count, split, c) for c in combinations}
    rows = prompt_rows(combinations, count, split)
    place = dict.fromkeys(combinations, -1)
    for row, combination in zip(rows, [c for _ in range(count) for c in combinations], strict=True):
        place[combination] += 1
        ids = world.leaves.ids[drawn[combination][place[combination]]]
        row["completion_ids"] = [int(token) for token in ids if token <= world.tokens]
        row["completion"] = completion_text(world, ids)
    return rows


def completion_text(world: World, ids: Iterable[int]) -> str:
    """Return token ids as text, without the end."""
    return " ".join(f"t{token}" for token in ids if token < world.tokens)


def _draws(world: World, logits: Floats, count: int, split: str, combination: Combination) -> Any:
    cumulative = np.cumsum(np.exp(world.leaves.markov(logits)))
    numbers = generator(world.seed, "text", split, *combination).random(count) * cumulative[-1]
    return np.minimum(np.searchsorted(cumulative, numbers, side="right"), len(cumulative) - 1)


def _row(combination: Combination, prompt_id: str) -> dict[str, Any]:
    return {"prompt_id": prompt_id, "prompt": prompt_text(combination), "cluster": _name(combination),
            "kind": "ordinary", "axis": "overall"}  # fmt: skip


def _name(combination: Combination) -> str:
    return prompt_text(combination).replace(" ", "")
