"""Preferences without end and without noise in their probabilities: what an annotator of infinite patience would say.

Whole completions are compared by their gold. Segments are pieces of two completions of one prompt, with different
beginnings and cut ends, compared by what they earn (their return) or by how much worse they do than the best policy
(their regret): ``sum_t A(s_t, a_t)`` with the soft advantages ``A = beta log(optimum / reference)`` of each token,
which sum to the log-ratio of a whole completion (Hejna et al., 2023; arXiv:2310.13639, section 3).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.special import expit

from alignarena.benchmarks.exact.text import completion_text
from alignarena.core.contract import Lab, Policy, Rows, Scorer
from alignarena.core.digest import digest
from alignarena.core.rows import from_columns
from alignarena.evaluators.exact.gold import WorldGold
from alignarena.evaluators.exact.optimum import tilted
from alignarena.evaluators.exact.world import Floats, World, prompt_text


@dataclass(frozen=True)
class ExactPreferences:
    """Fresh pairs of completions, half from the reference model, each with the probability that gold prefers it."""

    world: World
    axis: str
    reference: str  # digest of the reference model
    log_reference: Callable[[], Floats]  # (P, N) of the trained combinations, in nats; computed when first read
    phases: int
    pairs: int  # a phase
    value_start: Scorer | None = None

    @property
    def digest(self) -> str:
        """Name of its content."""
        return digest("exact preferences", 1, self.world, self.axis, self.reference, self.phases, self.pairs)

    @property
    def oracle(self) -> Scorer:
        """The gold itself."""
        return WorldGold(self.world, self.axis)

    def rows(self, phase: int, policy: Policy, lab: Lab) -> Rows:
        """Return the pairs of a phase: ``chosen`` is the likelier one, ``probability`` says how likely."""
        draw, tables = lab.random("exact pairs", self.axis, phase), self._tables
        prompts = draw.integers(len(self.world.trained), size=self.pairs)
        leaves = np.stack([tables.drawn(draw, prompts) for _ in range(2)], 1)
        spans = np.stack([self._spans(draw, leaves[:, side]) for side in range(2)], 1)
        worth = tables.worth(prompts[:, None], leaves, spans)
        order = np.argsort(-worth, axis=1, kind="stable")
        columns: dict[str, list[Any]] = {"prompt_id": [f"{phase}/{i}" for i in range(self.pairs)],
                   "prompt": [prompt_text(self.world.trained[p]) for p in prompts],
                   "probability": expit(np.abs(worth[:, 0] - worth[:, 1])).tolist()}  # fmt: skip
        for place, name in enumerate(("chosen", "rejected")):
            side = np.take_along_axis(leaves, order, 1)[:, place]
            span = np.take_along_axis(spans, order[:, :, None], 1)[:, place].tolist()
            cut = [tables.cut[leaf][stop] for leaf, (_, stop) in zip(side.tolist(), span, strict=True)]
            columns |= {name: [text for text, _ in cut], f"{name}_ids": [ids for _, ids in cut]}
            if self.world.feedback_kind != "whole":
                columns[f"{name}_span"] = span
        return from_columns(columns)

    def _spans(self, draw: np.random.Generator, leaves: Any) -> Any:
        """Return (B, 2) the first token of each segment and the one after its last: all, for whole completions."""
        lengths = self.world.leaves.lengths[leaves]
        if self.world.feedback_kind == "whole":
            return np.stack([np.zeros_like(lengths), lengths], 1)
        start = draw.integers(lengths)
        return np.stack([start, draw.integers(start + 1, lengths + 1)], 1)

    @cached_property
    def _tables(self) -> _Tables:
        return _Tables(self.world, self.axis, self.log_reference())


class _Tables:
    """What completions of each trained combination are drawn from, and what each of their tokens is worth."""

    def __init__(self, world: World, axis: str, log_reference: Floats) -> None:
        gold = np.stack([world.gold(prompt, axis) for prompt in world.trained])
        share = world.uniform_share
        self._cumulative = np.cumsum((1 - share) * np.exp(log_reference) + share / gold.shape[1], axis=1)
        self._worth = self._each(world, axis, log_reference, gold)  # (P, N, L)
        # the text and ids of each completion, whole or cut after so many tokens
        self.cut = [[(completion_text(world, ids[:stop]), ids[:stop]) for stop in range(len(ids) + 1)]
                    for ids in world.leaves.ids.tolist()]  # fmt: skip

    @staticmethod
    def _each(world: World, axis: str, log_reference: Floats, gold: Floats) -> Floats:
        leaves = world.leaves
        if world.feedback_kind == "regret":
            optimum = tilted(log_reference, gold, world.beta)
            pairs = zip(optimum, log_reference, strict=True)
            return world.beta * np.stack([leaves.conditionals(a) - leaves.conditionals(b) for a, b in pairs])
        each = np.stack([world.rewards(prompt, axis).each(leaves) for prompt in world.trained])
        # what no token earns by itself, such as the loss of not ending, is earned at the last
        each[:, np.arange(len(leaves)), leaves.lengths - 1] += gold - each.sum(2)
        return each

    def drawn(self, draw: np.random.Generator, prompts: Any) -> Any:
        """Return a completion (B,) of each prompt."""
        numbers = draw.random(len(prompts)) * self._cumulative[prompts, -1]
        found = [np.searchsorted(self._cumulative[p], u, side="right") for p, u in zip(prompts, numbers, strict=True)]
        return np.minimum(found, self._cumulative.shape[1] - 1)

    def worth(self, prompts: Any, leaves: Any, spans: Any) -> Floats:
        """Return what the segments (B, 2) are worth."""
        places = np.arange(self._worth.shape[2])
        inside = (places >= spans[..., :1]) & (places < spans[..., 1:])
        return (self._worth[prompts, leaves] * inside).sum(-1)  # type: ignore[no-any-return]
