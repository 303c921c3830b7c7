"""The report: one self-contained page, with its tables and plots beside it as files."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from alignarena.core.files import atomic_write
from alignarena.core.records import Ledger
from alignarena.reports import answer, exact, plots, tables
from alignarena.reports.completions import MOST_PROMPTS, browsable
from alignarena.reports.convergence import how_it_ended
from alignarena.reports.roles import roles
from alignarena.reports.style import inline, look
from alignarena.reports.tables import Shown, Table, number
from alignarena.reports.text import printable, script_json
from alignarena.reports.tracks import tracks
from alignarena.results.frame import Entry, Results, load_results
from alignarena.results.store import RunFolder

_TEMPLATES = Path(__file__).resolve().parent / "templates"
_LEDGER_DIGITS = {"labels": 1, "seconds": 1}


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
    drawn = plots.draw(results)
    extra = tables.extra(results)
    board, split = tables.leaderboard(results), tables.leaderboard(results, tables.SPLIT, "split")
    degenerate = tables.degenerate(results)
    written = [board, tables.budget(results), tables.axes(results), degenerate, *extra, *exact.full(results)]
    tables.write_tables(written, out / "tables")
    plots.write_plots(drawn, out / "plots")
    path = out / "index.html"
    atomic_write(path, render(results, split, extra, drawn).encode("utf-8", "replace"))
    return path


def render(results: Results, split: Table, extra: Sequence[Table], drawn: Sequence[plots.Plot]) -> str:
    """Return the page."""
    boards = tracks(results)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["printable"] = lambda value: printable(str(value))
    script = (_TEMPLATES / "report.js").read_text(encoding="utf-8")
    entries = list(results.entries.values())
    return environment.get_template("report.html.j2").render(
        title=", ".join(folder.name for folder in results.folders),
        script=script,
        # The page runs this one script and nothing else, whatever a completion holds.
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=(_TEMPLATES / "report.css").read_text(encoding="utf-8"),
        answers=answer.answers(results),
        boards=boards,
        laboratory=exact.laboratory(results),
        notes=_notes,
        split=split if len(split.headings) > 2 else None,  # more than the method and gold itself
        extra=extra,
        further=tables.further(results),
        plots={plot.name: inline(plot.svg, plot.name, plot.caption) for plot in drawn},
        training=[(entry.label, f"training-{entry.label.replace('/', '-')}") for entry in entries],
        ended={entry.label: how_it_ended(entry) for entry in entries},
        charged=_charged(entries),
        limits=_limits(entries),
        spent=_spent(results.folders),
        stages=[(entry.label, _stages(entry)) for entry in entries],
        completions=script_json(browsable(results)),
        most_prompts=MOST_PROMPTS,
        cards=[_card(entry) for entry in entries],
        most_trained=plots.MOST_TRAINED,
        looks={name: look(name)[0] for entry in entries for name in (entry.label, entry.method)},
        remarks={entry.label: _remark(entry) for entry in entries},
        roles=roles(results.frame["evaluator"].unique(), results.folders),
        failures=[(entry.label, cell) for entry in entries for cell in entry.cells.values() if cell.state == "FAILED"],
        degenerate=tables.degenerate(results),
        unfinished=[f"{entry.label}/{seed}" for entry in entries for seed, cell in entry.cells.items()
                    if cell.state in ("RUNNING", "WAITING")],
        provenance=[(folder.name, _provenance(folder)) for folder in results.folders],
    )  # fmt: skip


def _limits(entries: Sequence[Entry]) -> list[str]:
    limits = {limit for entry in entries for cell in entry.cells.values() for limit in cell.budget.items()}
    return [f"{name.replace('_', ' ')} {number(limit, 0)}" for name, limit in sorted(limits)]


def _notes(table: Table) -> list[str]:
    """Why cells are empty, one line a reason: of a method without any numbers, else of columns."""
    places: dict[str, dict[str, None]] = {}  # keys in order of appearance
    for row in table.shown:
        empty = [(heading, cell.reason) for heading, cell in zip(table.headings, row, strict=True) if cell.reason]
        for heading, reason in empty:
            places.setdefault(reason, {})[row[0].text if reason in tables.NO_NUMBERS else heading] = None
    return [f"{', '.join(where)}: {reason}" for reason, where in places.items()]


def _charged(entries: Sequence[Entry]) -> Table:
    """The ledger that methods are compared by: the mean of their finished seeds, every stage at its cold cost."""
    names = tables.LEDGER_FIELDS
    charged = [(entry, entry.charged() if entry.finished else None) for entry in entries]
    shown = [[Shown(entry.label, sort=entry.label), *_ledger(ledger)] for entry, ledger in charged]
    headings = ["method", *(name.replace("_", " ") for name in names)]
    return Table("charged", "Charged", "", ["method", *names], [], headings, shown)


def _ledger(ledger: Ledger | None) -> list[Shown]:
    if ledger is None:
        return [Shown(reason="no finished seed")] * len(tables.LEDGER_FIELDS)
    counts = ledger.to_dict().items()
    return [
        Shown(f"{value:.2e}" if name == "flops" else number(value, _LEDGER_DIGITS.get(name, 0)), sort=float(value))
        for name, value in counts
    ]


def _spent(folders: Sequence[RunFolder]) -> list[str]:
    lines = []
    for folder in folders:
        seconds = folder.status.get("machine_seconds")
        memory = folder.status.get("machine_peak_memory_mib")
        if seconds is not None:
            peak = f" and at most {number(memory, 0)} MiB of memory" if memory is not None else ""
            lines.append(f"{folder.name}: the machine really spent {number(seconds, 0)} s{peak}")
    return lines


def _stages(entry: Entry) -> list[dict[str, Any]]:
    """The stages of the first seed that has any: what was asked, whether it was in the cache, and its cold cost."""
    stages = next((cell.stages for cell in entry.cells.values() if cell.stages), [])
    shown = []
    for stage in stages:
        ledger = Ledger.from_dict(stage.get("ledger", {}))
        tokens = {"sampled": ledger.sampled_tokens, "trained": ledger.trained_tokens, "scored": ledger.scored_tokens}
        shown.append(
            {
                "verb": stage.get("verb", ""),
                "stage": stage.get("stage", ""),
                "cache": "from the cache" if stage.get("hit") else "computed",
                "tokens": ", ".join(f"{number(count, 0)} {name}" for name, count in tokens.items() if count),
                "seconds": number(ledger.seconds, 1),
            }
        )
    return shown


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
