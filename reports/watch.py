"""``alignarena watch``: how far the cells of a run are, read from the files that they leave."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from alignarena.core.files import read_json, read_jsonl
from alignarena.core.records import Ledger
from alignarena.core.text import printable
from alignarena.results.cells import State
from alignarena.results.convergence import REWARDS
from alignarena.results.frame import STUDY, run_folders
from alignarena.results.store import RunFolder

EVERY = 2.0  # seconds between two looks
SILENT_AFTER = 300.0  # seconds without a note after which a cell under way may be dead
_LAST = ("loss", *REWARDS)  # of a training curve
_STYLES: Mapping[State, str] = {"RUNNING": "cyan", "FAILED": "red", "WAITING": "dim", "DONE": "green"}


@dataclass(frozen=True)
class Line:
    """One cell, or the work that cells share, as it shows."""

    name: str
    state: State
    said: str

    @property
    def text(self) -> str:
        """The line where there is no terminal."""
        return f"{self.name}: {self.state}{f', {self.said}' if self.said else ''}"


def watch(run_dir: str | Path, once: bool = False, console: Console | None = None) -> int:
    """Show a run until all its cells have ended: a table on a terminal, elsewhere a line for what has changed.

    Args:
        run_dir: A run folder, or a study's; complete, under way or killed.
        once: Whether to show it as it is now and end.
        console: Where to.

    Returns:
        0; 1 where the run has ended and a cell failed.

    Raises:
        BadInput: Not a run folder.
    """
    console = console or Console()
    if once or not console.is_terminal:
        return _in_lines(run_dir, once, console)
    with Live(console=console, auto_refresh=False) as live:
        while True:
            lines = look(run_dir)
            live.update(_table(lines, console.height), refresh=True)
            if _ended(lines):
                return _status(lines)
            time.sleep(EVERY)


def look(run_dir: str | Path) -> list[Line]:
    """Return every cell of a run, and shared work that is under way, as they are now."""
    variants = read_json(Path(run_dir) / STUDY, {}).get("variants", [])
    begun = run_folders(run_dir)
    lines = [line for folder in begun for line in _of_run(folder, f"{folder.name}/" if variants else "")]
    names = {folder.name for folder in begun}
    return lines + [Line(str(name), "WAITING", "") for name in variants if str(name) not in names]


def _in_lines(run_dir: str | Path, once: bool, console: Console) -> int:
    seen: list[Line] = []
    while True:
        lines = look(run_dir)
        for line in lines:
            if line not in seen:
                console.print(Text(line.text), soft_wrap=True)
        seen = lines
        if once or _ended(lines):
            console.print(Text(_summary(lines)), soft_wrap=True)
            return 0 if once else _status(lines)
        time.sleep(EVERY)


def _of_run(folder: RunFolder, prefix: str) -> Iterator[Line]:
    marks = folder.status.get("cells", {})
    states = {f"{method}/{seed}": folder.state(method, seed) for method, seed in folder.cells()}
    # a failed cell that runs again keeps its old end until it has a new one
    states |= {name: "RUNNING" for name, state in states.items() if (state, marks.get(name)) == ("FAILED", "RUNNING")}
    if not _all_ended(states.values()):
        for seed in sorted({name.rpartition("/")[2] for name in states}):
            noted = folder.progress(f"shared/{seed}")
            if noted and _age(noted) < SILENT_AFTER:
                yield Line(f"{prefix}shared/{seed}", "RUNNING", _under_way(noted))
    for name, state in states.items():
        yield Line(prefix + name, state, printable(_said(folder, name, state)))


def _said(folder: RunFolder, name: str, state: State) -> str:
    if state == "FAILED":
        return " ".join(str(read_json(folder.path / name / "FAILED", {}).get("error", "")).split())
    if state == "RUNNING":
        return _under_way(folder.progress(name))
    return ", ".join(_finished(folder.path / name)) if state == "DONE" else ""


def _under_way(noted: Mapping[str, Any]) -> str:
    if not noted:
        return ""
    share = 100 * float(noted["done"]) / max(1.0, float(noted["total"]))
    said = f"{noted['stage']} {min(share, 100):.0f} %, {noted['tokens_per_second']:,.0f} tokens/s"
    silent = _age(noted)
    return f"{said}; silent for {silent / 60:.0f} min, killed?" if silent >= SILENT_AFTER else said


def _finished(cell: Path) -> Iterator[str]:
    """Yield what a finished cell came to: its steps, the end of its curve, and what it took."""
    steps = [row for row in read_jsonl(cell / "metrics.jsonl") if "step" in row]
    if steps:
        yield f"{len(steps)} steps"
    for name in _LAST:
        value = next((row[name] for row in reversed(steps) if row.get(name) is not None), None)
        if value is not None:
            yield f"{name.rpartition('/')[2]} {value:.3f}"
    yield f"{Ledger.from_dict(read_json(cell / 'budget.json', {}).get('charged', {})).seconds:,.0f} s"
    if read_json(cell / "DONE", {}).get("stopped") == "budget":
        yield "stopped by its budget"


def _age(noted: Mapping[str, Any]) -> float:
    return time.time() - float(noted.get("at", 0.0))


def _ended(lines: Sequence[Line]) -> bool:
    return _all_ended(line.state for line in lines)


def _all_ended(states: Iterable[State]) -> bool:
    return set(states) <= {"DONE", "FAILED"}


def _status(lines: Sequence[Line]) -> int:
    return int(any(line.state == "FAILED" for line in lines))


def _summary(lines: Sequence[Line]) -> str:
    cells = [line for line in lines if "shared/" not in line.name]
    counts = {state: sum(line.state == state for line in cells) for state in _STYLES}
    return f"{len(cells)} cells: " + ", ".join(f"{count} {state}" for state, count in counts.items() if count)


def _table(lines: Sequence[Line], height: int) -> Table:
    """Return what fits a screen: what runs before what failed, waits or is done."""
    order = sorted(lines, key=lambda line: list(_STYLES).index(line.state))
    room = max(1, height - 4)
    table = Table("cell", "state", "", box=None, header_style="bold", pad_edge=False, title=_summary(lines))
    for line in order[:room]:
        state = Text(line.state, style=_STYLES[line.state])
        table.add_row(Text(line.name), state, Text(line.said, overflow="ellipsis", no_wrap=True))
    if len(order) > room:
        table.add_row(Text(f"and {len(order) - room} more"), "", "")
    return table
