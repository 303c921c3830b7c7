"""What a judge is asked and what it answers, so that a missing or unreadable answer is counted and never dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Pair:
    """Two completions of one prompt, as text."""

    prompt: str
    a: str
    b: str

    def swapped(self) -> Pair:
        """Return the pair with its completions in the other order."""
        return Pair(self.prompt, self.b, self.a)


@dataclass(frozen=True)
class Answer:
    """What a judge said of a pair."""

    probability: float | None  # that a is better; None: no answer came
    orders: tuple[float, float] | None = None  # that what stood first is better, a first and b first; None: not known
    unreadable: int = 0  # orders whose reply, asked for again, named no side: each counts as even
    missing: str = ""  # why no answer came
    ruled: bool = False  # decided by a rule, without asking
    suspects: tuple[str, ...] = ()  # what in a or b may have been written for the judge


def in_both_orders(first: float, swapped: float, unreadable: int = 0) -> Answer:
    """Return the answer of a judge asked twice, without the place: ``(first + 1 - swapped) / 2``.

    Args:
        first: Probability that what stands first is better, a first.
        swapped: The same, b first.
        unreadable: Orders that are even because the reply could not be read.
    """
    return Answer((first + 1.0 - swapped) / 2.0, (first, swapped), unreadable)


def orders_read(answers: Sequence[Answer]) -> list[tuple[float, float]]:
    """Return the orders of the answers that tell how a judge agrees with itself: it was asked, and read, in both."""
    return [one.orders for one in answers if one.orders is not None and not one.ruled and not one.unreadable]


class PairJudge(Protocol):
    """Compares two completions of a prompt. A frozen dataclass."""

    @property
    def name(self) -> str:
        """Its name in tables."""
        ...

    @property
    def role(self) -> str:
        """``verdict``, if it may decide where its lineage is independent of the feedback, else ``diagnostic``."""
        ...

    @property
    def model(self) -> str:
        """The language model that answers; empty where none does."""
        ...

    @property
    def how(self) -> str:
        """Where it is asked and what for, as far as its name does not say it; may be empty."""
        ...

    @property
    def lineage(self) -> frozenset[str]:
        """The root scorers it was made from."""
        ...

    def answers(self, pairs: Sequence[Pair]) -> list[Answer]:
        """Return one answer a pair, in order."""
        ...
