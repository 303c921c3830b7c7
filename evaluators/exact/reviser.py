"""The reviser of an exact world: a program that puts the best word in the place that a principle names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from datasets import Dataset
from scipy.sparse import csr_array

from alignarena.core.contract import Lab, Principle, Rows
from alignarena.core.errors import BadInput
from alignarena.evaluators.constitution import draw
from alignarena.evaluators.exact.gold import places
from alignarena.evaluators.exact.leaves import Ints
from alignarena.evaluators.exact.world import World, parsed
from alignarena.evaluators.reviser import revised


def place_principles(world: World) -> tuple[Principle, ...]:
    """Return one principle for each place that a word can have in a completion that ends."""
    return tuple(
        Principle(f"What would word {place} better be?", f"Put it in place {place}.", "Prefer what earns more.")
        for place in range(1, world.length)
    )


def revision(world: World, prompt: tuple[int, ...], place: int) -> Ints:
    """Return which leaf every leaf (N,) of a prompt becomes when the word in a place, from 0, is made the best one.

    Best is what the AI labeler thinks best of the whole completion. A completion without such a word, or without an
    end, stays as it is.
    """
    leaves, opinion = world.leaves, world.opinion(prompt)
    becomes = np.arange(len(leaves))
    held = np.flatnonzero(leaves.finished & (leaves.lengths > place + 1))
    options = []
    for token in range(world.tokens):
        ids = leaves.ids[held].copy()
        ids[:, place] = token
        options.append(leaves.place(ids))
    found = np.stack(options, 1)  # (held, V)
    becomes[held] = found[np.arange(len(held)), opinion[found].argmax(1)]
    return becomes


def kernel(world: World, prompt: tuple[int, ...]) -> Any:
    """Return the probability (N, N), sparse, with which a revision by any principle turns one leaf into another."""
    size, count = len(world.leaves), world.length - 1
    moves = [revision(world, prompt, place) for place in range(count)]
    rows, columns = np.tile(np.arange(size), count), np.concatenate(moves)
    return csr_array((np.full(len(rows), 1 / count), (rows, columns)), shape=(size, size))


@dataclass(frozen=True)
class WorldReviser:
    """Draws a principle for each row and revises by it; a completion that was cut is not revised."""

    world: World

    def revise(self, rows: Rows, principles: tuple[Principle, ...], lab: Lab, *, stream: str) -> Rows:
        """Return the rows revised once.

        Raises:
            BadInput: A row is not of this world, or a principle names no place in it.
        """
        found = zip(rows.to_list(), places(self.world, rows), strict=True)
        return Dataset.from_list(
            [self._revised(row, leaf, draw(principles, lab, stream, row["prompt_id"], row.get("sample")))
             for row, (_, leaf) in found]
        )  # fmt: skip

    def _revised(self, row: dict[str, Any], leaf: int, principle: Principle) -> dict[str, Any]:
        becomes = int(_moves(self.world, row["prompt"], self._place(principle))[leaf])
        leaves = self.world.leaves
        if not leaves.finished[leaf]:
            return revised(row, principle, "", None)
        text = " ".join(f"t{token}" for token in leaves.ids[becomes] if token < leaves.tokens)
        return revised(row, principle, "It is the best." if becomes == leaf else "Another would be better.", text)

    def _place(self, principle: Principle) -> int:
        named = re.search(r"\bword (\d+)", principle.critique_request)
        place = int(named[1]) if named else 0
        if not 1 <= place < self.world.length:
            raise BadInput(f"{principle.critique_request!r} is no principle of the exact world, whose reviser is a "
                           f"program: name 'word 1' to 'word {self.world.length - 1}'")  # fmt: skip
        return place - 1


@lru_cache(maxsize=4096)
def _moves(world: World, prompt: str, place: int) -> Ints:
    return revision(world, parsed(prompt), place)
