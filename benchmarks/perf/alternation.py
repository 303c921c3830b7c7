"""Two sides take the same steps by turns, in one process; which goes first changes every time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from transformers import TrainerCallback

WARM_UP = 1  # steps of each side that are not counted
Lines = list[dict[str, Any]]


@dataclass
class Turns:
    """Seconds and log lines of each step of both sides."""

    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    our_lines: Lines = field(default_factory=list)
    their_lines: Lines = field(default_factory=list)

    @property
    def counted(self) -> tuple[list[float], list[float]]:
        """Seconds of the repeats, without the warm-up."""
        return self.ours[WARM_UP:], self.theirs[WARM_UP:]


class Alternation(TrainerCallback):  # type: ignore[misc]
    """Rides on TRL's training loop: our step stands before theirs where their step is even, else after it."""

    def __init__(self, our_step: Callable[[], dict[str, Any]], always_second: bool = False) -> None:
        self.our_step, self.always_second, self.turns = our_step, always_second, Turns()
        self._start = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start their clock, after our step where it is our turn to go first."""
        if self._first(state.global_step):
            self._ours()
        self._start = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop their clock, then take our step where it is our turn to go second."""
        self.turns.theirs.append(time.perf_counter() - self._start)
        if not self._first(state.global_step - 1):
            self._ours()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
        """Keep the log line of a step."""
        if "loss" in logs:
            self.turns.their_lines.append(dict(logs))

    def _first(self, step: int) -> bool:
        return step % 2 == 0 and not self.always_second

    def _ours(self) -> None:
        start = time.perf_counter()
        line = self.our_step()
        self.turns.ours.append(time.perf_counter() - start)
        self.turns.our_lines.append(line)


def take_turns(ours: Callable[[], object], theirs: Callable[[], object], repeats: int) -> Turns:
    """Time two calls by turns, warm-up included."""
    turns = Turns()
    for repeat in range(WARM_UP + repeats):
        sides = [(ours, turns.ours), (theirs, turns.theirs)]
        for call, seconds in sides if repeat % 2 == 0 else reversed(sides):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
    return turns
