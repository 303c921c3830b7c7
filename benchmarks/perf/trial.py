"""A short trial of what TRL leaves to its user: the fastest settings on this machine are the opponent."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from transformers import TrainerCallback

from alignarena.benchmarks.perf import theirs
from alignarena.benchmarks.perf.bench import Bench
from alignarena.benchmarks.perf.ours import release_memory
from alignarena.benchmarks.perf.terms import Settings

Trial = tuple[Settings, dict[str, float]]  # the best, and the seconds of each tried


class Clock(TrainerCallback):  # type: ignore[misc]
    """Seconds of each optimiser step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._start = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Start."""
        self._start = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Stop."""
        self.seconds.append(time.perf_counter() - self._start)


def step_seconds(trainer: Any) -> float:
    """Train for the trainer's steps and return the seconds of the first one."""
    clock = Clock()
    theirs.quiet(trainer, clock).train()
    return clock.seconds[0]


def fastest(bench: Bench, key: str, seconds: Callable[[Settings], float], changes: Sequence[dict[str, Any]]) -> Trial:
    """Return the fastest settings: one is changed at a time, and kept where it is faster.

    Args:
        bench: The run; an answer holds for all of it.
        key: What the answer is for.
        seconds: What a step takes under some settings.
        changes: Tried in this order.
    """
    if key not in bench.chosen:
        if not bench.chosen:
            seconds(Settings())  # the first step of a process also loads kernels
        bench.chosen[key] = _search(seconds, changes)
    found: Trial = bench.chosen[key]
    return found


def _search(seconds: Callable[[Settings], float], changes: Sequence[dict[str, Any]]) -> Trial:
    best = Settings()
    tried = {best.label(): seconds(best)}
    for change in changes:
        candidate = replace(best, **change)
        if candidate.label() in tried:
            continue
        release_memory()
        tried[candidate.label()] = seconds(candidate)
        if tried[candidate.label()] < tried[best.label()]:
            best = candidate
    return best, tried
