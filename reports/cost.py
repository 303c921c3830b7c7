"""What methods cost: the ledger they are compared by, the reward gained for it, and what was really spent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import StrMethodFormatter

from alignarena.core.records import Ledger
from alignarena.reports.style import figure, look, name_beside
from alignarena.reports.table import Shown, Table, measured, number
from alignarena.reports.tables import LEDGER_FIELDS
from alignarena.results.comparison import Comparison
from alignarena.results.frame import Entry, Results
from alignarena.results.store import RunFolder
from alignarena.results.verdicts import against_baseline

_COLUMNS = 3  # of panels
_DIGITS = {"labels": 1, "seconds": 1}
# What a gain is divided by: the ledger's field, so many of them, and how the two are said.
_UNITS = {
    "completions": (1000, "1,000 sampled completions"),
    "trained_tokens": (100_000, "100,000 trained tokens"),
    "labels": (1000, "1,000 labels"),
    "labeler_calls": (1000, "1,000 labeler calls"),
    "seconds": (600, "10 minutes"),
}


def charged(entries: Sequence[Entry]) -> Table:
    """Return the mean ledger of each method's finished seeds, every stage at its cold cost."""
    ledgers = [(entry, entry.charged() if entry.finished else None) for entry in entries]
    shown = [[Shown(entry.label, sort=entry.label), *_ledger(ledger)] for entry, ledger in ledgers]
    raw = [[entry.label, *(ledger.to_dict().values() if ledger else [None] * len(LEDGER_FIELDS))]
           for entry, ledger in ledgers]  # fmt: skip
    headings = ["method", *(name.replace("_", " ") for name in LEDGER_FIELDS)]
    return Table("charged", "Charged", "", ["method", *LEDGER_FIELDS], raw, headings, shown)


def gains(results: Results) -> Table:
    """Return each method's gain over SFT for each unit that it was charged beyond SFT, with the gain's interval."""
    compared = against_baseline(results)
    rows, raw = [], []
    for label, one in compared.items():
        beyond = _beyond(results, label)
        cells = [_gain(one, beyond[name] / many) for name, (many, _) in _UNITS.items()]
        rows.append([Shown(label, sort=label), measured(one.difference, one.low, one.high), *cells])
        raw.append([label, one.difference, *(cell.sort if cell.text else None for cell in cells)])
    headings = ["method", "gain over SFT", *(f"per {words}" for _, words in _UNITS.values())]
    columns = ["method", "gain", *(f"gain_per_{many}_{name}" for name, (many, _) in _UNITS.items())]
    return Table("gains", "Reward gained for what was charged", "", columns, raw, headings, rows)


def plot(results: Results) -> Any | None:
    """Gain over SFT against each cost, of every method that was charged it."""
    compared = against_baseline(results)
    spent = {label: _beyond(results, label) for label in compared}
    units = [name for name in _UNITS if any(beyond[name] > 0 for beyond in spent.values())]
    if not units:
        return None
    rows = math.ceil(len(units) / _COLUMNS)
    drawn, grid = figure(2.7 * min(len(units), _COLUMNS) + 1.6, 2.7 * rows, rows, min(len(units), _COLUMNS))
    places, points = list(np.atleast_1d(grid).ravel()), dict[str, Any]()
    for axes in places[len(units) :]:
        axes.set_visible(False)
    for axes, name in zip(places, units, strict=False):
        points |= _panel(axes, name, compared, {label: beyond[name] for label, beyond in spent.items()})
    for axes in places[::_COLUMNS]:
        axes.set_ylabel("gain over SFT, 95 % interval")
    known = [label for label in compared if label in points]
    name_beside(drawn, [points[label] for label in known], known)
    return drawn


def _panel(axes: Any, name: str, compared: Mapping[str, Comparison], spent: Mapping[str, float]) -> dict[str, Any]:
    points = {}
    for label, one in compared.items():
        if spent[label] > 0:
            colour, marker = look(label)
            axes.plot([spent[label]] * 2, [one.low, one.high], color=colour, linewidth=1, alpha=0.7)
            points[label] = axes.plot(spent[label], one.difference, marker, color=colour, markersize=7)[0]
    axes.axhline(0, color=look("sft")[0], linestyle=(0, (4, 3)), linewidth=1)
    axes.set_xlabel(f"{name.replace('_', ' ')} charged")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_xlim(left=0)
    axes.locator_params(axis="x", nbins=3)
    return points


def _beyond(results: Results, label: str) -> dict[str, float]:
    """What a method was charged less what its SFT row was, as every method pays for the SFT policy it starts from."""
    entry = results.entry(label)
    own, start = (one.charged().to_dict() for one in (entry, results.entry(entry.baseline)))
    return {name: float(own[name] - start[name]) for name in _UNITS}


def _gain(one: Comparison, units: float) -> Shown:
    if units <= 0:
        return Shown(reason="none charged beyond SFT")
    return measured(one.difference / units, one.low / units, one.high / units)


def _ledger(ledger: Ledger | None) -> list[Shown]:
    if ledger is None:
        return [Shown(reason="no finished seed")] * len(LEDGER_FIELDS)
    counts = ledger.to_dict().items()
    return [
        Shown(f"{value:.2e}" if name == "flops" else number(value, _DIGITS.get(name, 0)), sort=float(value))
        for name, value in counts
    ]


def limits(entries: Sequence[Entry]) -> list[str]:
    """Return the limits that were set, in words."""
    known = {limit for entry in entries for cell in entry.cells.values() for limit in cell.budget.items()}
    return [f"{name.replace('_', ' ')} {number(limit, 0)}" for name, limit in sorted(known)]


def spent(folders: Sequence[RunFolder]) -> list[str]:
    """Return what the machine really spent on each run, in words."""
    lines = []
    for folder in folders:
        seconds = folder.status.get("machine_seconds")
        memory = folder.status.get("machine_peak_memory_mib")
        if seconds is not None:
            peak = f" and at most {number(memory, 0)} MiB of memory" if memory is not None else ""
            lines.append(f"{folder.name}: the machine really spent {number(seconds, 0)} s{peak}")
    return lines


def stages(entry: Entry) -> list[dict[str, Any]]:
    """The stages of the first seed that has any: what was asked, whether it was in the cache, and its cold cost."""
    shown = []
    for stage in next((cell.stages for cell in entry.cells.values() if cell.stages), []):
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
