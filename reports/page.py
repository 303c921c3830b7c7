"""The report: one self-contained page, with its tables and plots beside it as files."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jinja2

from alignarena.core.files import atomic_write
from alignarena.reports import (
    answer,
    cost,
    curves,
    exact,
    frontier,
    lengths,
    over_training,
    plots,
    sections,
    tables,
    wins,
)
from alignarena.reports.completions import browsable
from alignarena.reports.convergence import how_it_ended
from alignarena.reports.roles import roles
from alignarena.reports.style import Plot, inline, look
from alignarena.reports.table import Table, write_tables
from alignarena.reports.text import printable
from alignarena.reports.tracks import tracks
from alignarena.reports.whiskers import whiskers
from alignarena.results.frame import Entry, Results, load_results
from alignarena.results.store import RunFolder

_TEMPLATES = Path(__file__).resolve().parent / "templates"


def write_report(run_dirs: Sequence[str | Path], out: str | Path | None = None) -> Path:
    """Write the report of one or more run folders: index.html, tables/ and plots/.

    Args:
        run_dirs: Run folders, complete or not.
        out: Where to; ``report`` in the first run folder if not given.

    Returns:
        The path of index.html. The same run folders always give the same bytes.

    Raises:
        BadInput: A folder is not a run folder.
    """
    results = load_results(*run_dirs)
    out = Path(out) if out is not None else Path(run_dirs[0]) / "report"
    drawn, found = plots.draw(results), _tables(results)
    write_tables(found.all(), out / "tables")
    plots.write_plots(drawn, out / "plots")
    path = out / "index.html"
    atomic_write(path, render(results, found, drawn).encode("utf-8", "replace"))
    return path


@dataclass(frozen=True)
class _Tables:
    """The report's tables; those of the leaderboard's tracks are made from it."""

    board: Table
    split: Table
    frontier: Table
    over_training: Table
    matches: list[tuple[wins.Matches, Table, Table, Table]]  # with its matrix, ranking and pairs
    charged: Table
    gains: Table
    length: Table
    further: Table
    degenerate: Table
    extra: list[Table]
    files: list[Table]  # those that are files alone

    def all(self) -> list[Table]:
        """Every table that is worth a file."""
        of_matches = [table for _, *three in self.matches for table in three]
        shown = [self.frontier, self.over_training, self.charged, self.gains, self.length]
        known = [one for one in shown if one.shown]
        return [self.board, *known, self.degenerate, *of_matches, *self.extra, *self.files]


def _tables(results: Results) -> _Tables:
    return _Tables(
        board=tables.leaderboard(results),
        split=tables.leaderboard(results, tables.SPLIT, "split"),
        frontier=frontier.table(frontier.frontiers(results)),
        over_training=over_training.table(results, over_training.courses(results)),
        matches=[(one, wins.matrix(one), wins.ranking(one), wins.pairs(one)) for one in wins.matches(results)],
        charged=cost.charged(list(results.entries.values())),
        gains=cost.gains(results),
        length=lengths.table(results),
        further=tables.further(results),
        degenerate=tables.degenerate(results),
        extra=tables.extra(results),
        files=[tables.budget(results), tables.axes(results), *exact.full(results)],
    )


def render(results: Results, found: _Tables, drawn: Sequence[Plot]) -> str:
    """Return the page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["printable"] = lambda value: printable(str(value))
    script = (_TEMPLATES / "report.js").read_text(encoding="utf-8")
    entries = list(results.entries.values())
    looks = {name: look(name)[0] for entry in entries for name in (entry.label, entry.method)}
    return environment.get_template("report.html.j2").render(
        title=", ".join(folder.name for folder in results.folders),
        script=script,
        # The page runs this one script and nothing else, whatever a completion holds.
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=(_TEMPLATES / "report.css").read_text(encoding="utf-8"),
        answers=answer.answers(results),
        boards=tracks(results),
        laboratory=exact.laboratory(results),
        notes=_notes,
        whiskers=partial(whiskers, looks=looks, starts={entry.label for entry in entries if entry.is_baseline}),
        tables=found,
        extra=sections.by_section(found.extra),
        labels=[(folder.name, sections.labels(folder)) for folder in results.folders],
        plots={plot.name: inline(plot.svg, plot.name, plot.caption) for plot in drawn},
        training=[(entry.label, f"training-{entry.label.replace('/', '-')}") for entry in entries],
        ended={entry.label: how_it_ended(entry) for entry in entries},
        limits=cost.limits(entries),
        spent=cost.spent(results.folders),
        stages=[(entry.label, cost.stages(entry)) for entry in entries],
        completions=browsable(results),
        seeds=sorted({seed for entry in entries for seed in entry.cells}),
        cards=[_card(entry) for entry in entries],
        most_trained=curves.MOST_TRAINED,
        looks=looks,
        remarks={entry.label: _remark(entry) for entry in entries},
        roles=roles(results.frame["evaluator"].unique(), results.folders),
        failures=[(entry.label, cell) for entry in entries for cell in entry.cells.values() if cell.state == "FAILED"],
        unfinished=[f"{entry.label}/{seed}" for entry in entries for seed, cell in entry.cells.items()
                    if cell.state in ("RUNNING", "WAITING")],
        provenance=[(folder.name, _provenance(folder)) for folder in results.folders],
    )  # fmt: skip


def _notes(table: Table) -> list[str]:
    """Why cells are empty, one line a reason: of a method without any numbers, else of columns."""
    places: dict[str, dict[str, None]] = {}  # keys in order of appearance
    for row in table.shown:
        empty = [(heading, cell.reason) for heading, cell in zip(table.headings, row, strict=True) if cell.reason]
        for heading, reason in empty:
            places.setdefault(reason, {})[row[0].text if reason in tables.NO_NUMBERS else heading] = None
    return [f"{', '.join(where)}: {reason}" for reason, where in places.items()]


def _of_method(entry: Entry) -> dict[str, Any]:
    return (entry.folder.provenance.get("methods") or {}).get(entry.method) or {}


def _remark(entry: Entry) -> str:
    """What must be known of a row to read it: what the base model is, that a KL is a bound."""
    noted = _of_method(entry)
    remarks = [str(noted.get("summary", "")) if entry.method == "base" else ""]
    remarks.append(f"KL: {noted['kl']}" if noted.get("kl") else "")
    return " ".join(remark for remark in remarks if remark)


def _card(entry: Entry) -> dict[str, Any]:
    noted = _of_method(entry)
    config = next((cell.config for cell in entry.cells.values() if cell.config), {})
    paper = str(noted.get("paper") or "")
    return {
        "label": entry.label,
        "summary": noted.get("summary") or "",
        "paper": paper,
        "link": _link(paper),
        "differs": noted.get("differs") or "",
        "hyperparameters": list(flat(noted.get("hyperparameters") or config).items()),
    }


def _link(paper: str) -> str:
    """Return the address of a paper, or nothing: only arXiv numbers and https addresses become links."""
    arxiv = re.fullmatch(r"arXiv:(\d{4}\.\d{4,5})(v\d+)?", paper)
    if arxiv:
        return f"https://arxiv.org/abs/{arxiv[1]}"
    return paper if re.fullmatch(r"https://[^\s\"'<>]+", paper) else ""


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one, its keys joined by dots."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else {f"{prefix}{key}": value}
    return found


def _provenance(folder: RunFolder) -> dict[str, Any]:
    noted = folder.provenance
    facts = {key: value for key, value in noted.items() if key not in ("methods", "evaluators", "command")}
    suite = list(flat(folder.suite).items())
    return {"command": noted.get("command", ""), "facts": list(flat(facts).items()), "suite": suite}
