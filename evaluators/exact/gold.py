"""The hidden reward of an exact world as a scorer, hidden from the methods unless their setting gives it to them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from alignarena.core.contract import Lab, Rows
from alignarena.core.errors import BadInput
from alignarena.core.rows import column
from alignarena.evaluators.exact.world import Floats, World, parsed


@dataclass(frozen=True)
class WorldGold:
    """Scores a completion by what it earns in a world, on one axis or both."""

    world: World
    axis: str = "overall"

    @property
    def lineage(self) -> frozenset[str]:
        """The axes it is made of."""
        return frozenset({f"exact {self.axis}"})

    def score(self, rows: Rows, lab: Lab) -> list[float]:
        """Return the reward of each ``completion``, which its ids spell where it was cut.

        Raises:
            BadInput: A prompt or completion is not of this world.
        """
        return [float(_gold(self, prompt)[place]) for prompt, place in places(self.world, rows)]


def places(world: World, rows: Rows) -> Iterator[tuple[Any, int]]:
    """Return the prompt of each row and where its completion stands among the leaves.

    Raises:
        BadInput: A completion is not of this world.
    """
    reasons = column(rows, "finish_reason") if "finish_reason" in rows.column_names else ["stop"] * len(rows)
    texts = list(zip(column(rows, "completion"), reasons, strict=True))
    ids = {one: _ids(world, one[0], one[1] != "length") for one in set(texts)}  # most come more than once
    return zip(column(rows, "prompt"), world.leaves.place(np.array([ids[one] for one in texts])), strict=True)


def _ids(world: World, text: str, ended: bool) -> list[int]:
    """Return a completion's tokens with its end where it ended, padded to the length of the longest."""
    places = {f"t{token}": token for token in range(world.tokens)}
    ids = [places.get(word, -1) for word in text.split()] + [world.tokens] * ended
    if -1 in ids or len(ids) > world.length or not (ended or len(ids) == world.length):
        raise BadInput(f"{text!r} is no completion of the exact world: words t0 to t{world.tokens - 1}, {world.length} "
                       "where it is cut and fewer where it ends")  # fmt: skip
    return ids + [world.tokens + 1] * (world.length - len(ids))


@lru_cache(maxsize=4096)
def _gold(scorer: WorldGold, prompt: Any) -> Floats:
    return scorer.world.gold(parsed(prompt), scorer.axis)
