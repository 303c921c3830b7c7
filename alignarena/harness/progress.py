"""Progress for people: the stage, its tokens a second and the time left; one line a stage without a terminal."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import datasets
import transformers
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

NOTED_EVERY = 2.0  # seconds between two notes of what is under way
Note = Callable[[dict[str, Any]], None]


def quieten() -> None:
    """Keep other libraries' bars and notes about adapters that come and go out of the progress display."""
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    warnings.filterwarnings("ignore", message="Adapter .* was active which is now deleted")
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)


class Stage:
    """One stage under way; whoever is given as ``advanced`` is told of each step."""

    def __init__(
        self,
        bars: Progress | None,
        task: TaskID | None,
        name: str = "",
        total: float = 0,
        advanced: Callable[[Stage], None] | None = None,
    ) -> None:
        self._bars, self._task, self._advanced = bars, task, advanced
        self.name, self.total, self.done = name, total, 0.0
        self.tokens, self._start = 0, time.perf_counter()

    def advance(self, steps: float = 1, tokens: int = 0) -> None:
        """Count steps towards the stage's total, and tokens for its rate."""
        self.done += steps
        self.tokens += tokens
        if self._advanced is not None:
            self._advanced(self)
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, advance=steps, rate=f"{self.rate:,.0f} tokens/s")

    @property
    def rate(self) -> float:
        """Tokens a second since the stage began."""
        return self.tokens / max(time.perf_counter() - self._start, 1e-9)

    @property
    def seconds(self) -> float:
        """Seconds since the stage began."""
        return time.perf_counter() - self._start


class StageProgress:
    """Shows stages on stderr: bars on a terminal, a line each elsewhere, nothing in a silent process."""

    def __init__(self, silent: bool = False) -> None:
        self.console = Console(stderr=True, quiet=silent)
        self.cell = ""
        self.note: Note | None = None  # told of the stage under way, for who watches from another process
        self._noted = -math.inf
        self._bars: Progress | None = None

    @contextmanager
    def stage(self, name: str, total: float) -> Iterator[Stage]:
        """Show a stage of ``total`` steps; a stage inside another shows below it."""
        title = f"{self.cell} {name}".strip()
        if not self.console.is_terminal:
            stage = Stage(None, None, name, total, self._note_now_and_then)
            yield stage
            if stage.seconds >= 1:
                self.console.print(f"{title}: {stage.seconds:.0f} s, {stage.rate:,.0f} tokens/s", highlight=False)
            return
        outermost = self._bars is None
        if self._bars is None:
            self._bars = Progress(
                TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=self.console, transient=True,
            )  # fmt: skip
            self._bars.start()
        task = self._bars.add_task(title, total=total, rate="")
        try:
            yield Stage(self._bars, task, name, total, self._note_now_and_then)
        finally:
            self._bars.remove_task(task)
            if outermost:
                self._bars.stop()
                self._bars = None

    def _note_now_and_then(self, stage: Stage) -> None:
        """Pass on how far a stage is, seldom enough for the shortest of stages."""
        if self.note is not None and (now := time.monotonic()) - self._noted >= NOTED_EVERY:
            self._noted = now
            self.note(
                {"stage": stage.name, "done": stage.done, "total": stage.total, "tokens_per_second": stage.rate}
            )
