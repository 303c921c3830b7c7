"""One person at work on a run's pairs: what stands where, what is noted, and what is told; never who wrote it."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any, Literal, get_args

from alignarena.benchmarks.blind import Drawn
from alignarena.core.errors import BadInput
from alignarena.core.seeds import derive
from alignarena.core.text import printable
from alignarena.results.people import Person, Side, Verdict, Winner

Choice = Literal["first", "second", "tie"]
AT_ONCE = 10  # pairs that the page has ahead, and behind it to take back


class Sitting:
    """One person at work on a run's pairs; threads may share it.

    Args:
        drawn: The pairs, in order.
        person: Who judges.
    """

    def __init__(self, drawn: Sequence[Drawn], person: Person) -> None:
        self._drawn = {one.key: one for one in drawn}
        self._asked = [one for one in drawn if one.pair.a != one.pair.b]
        self._person = person
        self._lock = threading.Lock()
        self._last = time.monotonic()

    def state(self) -> dict[str, Any]:
        """Return how far the person is, the next pairs, and the latest ones in case they are taken back."""
        with self._lock:
            return self._state()

    def judge(self, key: str, choice: Choice | None) -> dict[str, Any]:
        """Note a verdict on a pair, or with None take it back, and return the state; said twice, it is noted once.

        Raises:
            BadInput: No such pair or choice.
            RunFailed: It cannot be written.
        """
        one = self._drawn.get(key)
        if one is None:
            raise BadInput("no such pair in this run")
        if choice is not None and choice not in get_args(Choice):
            raise BadInput("a verdict is first, second, tie or null")
        with self._lock:
            self._last = time.monotonic()
            known = self._person.standing.get(key)
            winner = self._winner(one, choice)
            if winner != (known.winner if known else None):
                self._person.add([*self._equal_before(one), self._verdict(one, winner, self._first(one))])
            return self._state()

    @property
    def complete(self) -> bool:
        """Whether every pair is judged."""
        return all(one.key in self._person.standing for one in self._asked)

    @property
    def idle(self) -> float:
        """Seconds since the last verdict."""
        return time.monotonic() - self._last

    def _state(self) -> dict[str, Any]:
        standing = self._person.standing
        waiting = [one for one in self._asked if one.key not in standing]
        latest = [self._drawn[one.pair] for one in self._person.asked if one.pair in self._drawn][-AT_ONCE:]
        return {
            "done": len(self._asked) - len(waiting),
            "total": len(self._asked),
            "pairs": [self._shown(one) for one in waiting[:AT_ONCE]],
            "judged": [self._shown(one) for one in latest],
        }

    def _shown(self, one: Drawn) -> dict[str, Any]:
        sides = {"a": one.pair.a, "b": one.pair.b}
        first = sides.pop(self._first(one))
        (second,) = sides.values()
        texts = {"prompt": one.pair.prompt, "first": first, "second": second}
        return {"pair": one.key, **{name: printable(text) for name, text in texts.items()}}

    def _first(self, one: Drawn) -> Side:
        return "a" if derive(0, "first", self._person.name, one.key) % 2 else "b"

    def _winner(self, one: Drawn, choice: Choice | None) -> Winner | None:
        if choice is None or choice == "tie":
            return choice
        return "a" if (self._first(one) == "a") == (choice == "first") else "b"

    def _equal_before(self, one: Drawn) -> list[Verdict]:
        """Equal texts are a tie that nobody need be asked about; they count as far as the person has come."""
        keys = list(self._drawn)
        passed = (self._drawn[key] for key in keys[: keys.index(one.key)] if key not in self._person.standing)
        return [self._verdict(equal, "tie", None) for equal in passed if equal.pair.a == equal.pair.b]

    def _verdict(self, one: Drawn, winner: Winner | None, first: Side | None) -> Verdict:
        where = (one.method, one.seed, one.prompt_id, one.sample)
        return Verdict(one.key, self._person.name, winner, first, *where, one.pair.prompt, one.pair.a, one.pair.b)
