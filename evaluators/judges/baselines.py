"""Judges that read nothing: what a real one must beat before its verdicts say anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from alignarena.core.digest import digest
from alignarena.evaluators.judges.pairs import Answer, Pair, in_both_orders


@dataclass(frozen=True)
class Longer:
    """Prefers the completion of more characters; equal ones are even."""

    name: str = "longer"
    role: str = "diagnostic"
    model: str = ""
    how: str = ""
    lineage: frozenset[str] = frozenset({"longer"})

    def answers(self, pairs: Sequence[Pair]) -> list[Answer]:
        """Compare lengths; the order changes nothing."""
        firsts = [0.5 if len(pair.a) == len(pair.b) else float(len(pair.a) > len(pair.b)) for pair in pairs]
        return [in_both_orders(first, 1 - first) for first in firsts]


@dataclass(frozen=True)
class First:
    """Prefers what stands first."""

    name: str = "first"
    role: str = "diagnostic"
    model: str = ""
    how: str = ""
    lineage: frozenset[str] = frozenset({"first"})

    def answers(self, pairs: Sequence[Pair]) -> list[Answer]:
        """Prefer the first in both orders, which averages to even."""
        return [in_both_orders(1.0, 1.0) for _ in pairs]


@dataclass(frozen=True)
class Random:
    """Throws a coin for each order; the same one for the same texts."""

    seed: int = 0
    name: str = "random"
    role: str = "diagnostic"
    model: str = ""
    how: str = ""
    lineage: frozenset[str] = frozenset({"random"})

    def answers(self, pairs: Sequence[Pair]) -> list[Answer]:
        """Throw two coins a pair."""
        return [in_both_orders(self._coin(pair), self._coin(pair.swapped())) for pair in pairs]

    def _coin(self, pair: Pair) -> float:
        return float(int(digest(self.seed, pair.prompt, pair.a, pair.b), 16) % 2)
