"""What people see of several workers: a row each on a terminal, and the lines that they write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn
from rich.text import Text


class WorkerDisplay:
    """Shows on stderr what each worker is doing; without a terminal, only their lines."""

    def __init__(self, workers: int) -> None:
        console = Console(stderr=True)
        columns = TextColumn("{task.description}", markup=False), TimeElapsedColumn()
        self._rows = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._cells = self._rows.add_task("", visible=False)
        self._workers = [self._rows.add_task("", visible=False) for _ in range(workers)]
        self._total = self._ended = 0

    @contextmanager
    def shown(self, cells: int) -> Iterator[None]:
        """Show the rows during a block, the number of cells above them."""
        self._total = cells
        with self._rows:
            self._count()
            yield

    def starts(self, worker: int, name: str) -> None:
        """Show what a worker begins with."""
        self._rows.reset(self._workers[worker], description=f"worker {worker}: {name}", visible=True)

    def ends(self, worker: int, cell: bool) -> None:
        """Take a worker's row away; count a cell."""
        self._rows.update(self._workers[worker], visible=False)
        self._ended += cell
        self._count()

    def say(self, line: str) -> None:
        """Print a worker's line above the rows."""
        self._rows.console.print(Text(line), soft_wrap=True)

    def _count(self) -> None:
        self._rows.update(self._cells, description=f"{self._ended} of {self._total} cells", visible=True)
