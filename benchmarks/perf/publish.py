"""``python -m alignarena.benchmarks.perf.publish``: what was measured, as tables and a plot in docs/performance.md."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

from alignarena.benchmarks.perf.entry import AT_MOST
from alignarena.benchmarks.perf.store import FILE, Record
from alignarena.core.errors import AlignArenaError, BadInput
from alignarena.core.files import atomic_write, read_json

matplotlib.use("Agg")
from matplotlib import pyplot as plt

DOCS = Path(__file__).resolve().parents[2] / "docs"
SWEEP = "sweep.json"
PAGE, PLOT = "performance.md", "images/bench.svg"
BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"
SHARES = AT_MOST | {"mfu"}  # ratios that are not "times faster"
_MET, _MISSED = "#2277bb", "#d55e00"
_STYLE = {"svg.hashsalt": "bench", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}


def publish(records: Sequence[Record], sweep: Record, docs: Path = DOCS) -> None:
    """Draw the plot and replace what stands between the markers of the page.

    Args:
        records: Of bench.json.
        sweep: Of sweep.json; empty where it was not measured.
        docs: Folder of the page.

    Raises:
        BadInput: There is nothing to publish, or the page lacks the markers.
    """
    if not records and not sweep:
        raise BadInput(f"neither {FILE} nor {SWEEP} to publish; run `make bench` or `make bench-sweep` first")
    page = docs / PAGE
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BadInput(f"{page} lacks the lines {BEGIN} and {END}; the table goes between them")
    parts = _sweep(sweep)
    if records:
        atomic_write(docs / PLOT, plot(records))
        parts = [table(records), f"![Ratios and bars]({PLOT})", *parts]
    text = "\n\n".join(parts)
    atomic_write(page, f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def table(records: Sequence[Record]) -> str:
    """Return the records as Markdown: a line on the machine, a table, and what the opponents were set to."""
    rows = [f"| {' | '.join(_cells(record))} |" for record in records]
    head = "| comparison | work | ours | opponent's | ratio [least, greatest] | bar | equal to |"
    parts = [_on(records[0]), "\n".join([head, "|---|---|---|---|---|---|---|", *rows]), _settings(records)]
    return "\n\n".join(parts)


def _cells(record: Record) -> list[str]:
    spread = f"{record['ratio']:.2f} [{record['ratio_low']:.2f}, {record['ratio_high']:.2f}]"
    sign = "≤" if record["name"] in AT_MOST else "≥"
    bar = f"{sign} {record['bar']:g}, {'met' if record['met'] else 'missed'}"
    names = f"`{record['name']}` against {record['opponent']}"
    rates = [f"{_number(record[side])} {record['unit']}" for side in ("ours", "theirs")]
    return [names, record["work"], *rates, spread, bar, _equality(record)]


def _equality(record: Record) -> str:
    if not record["equality"]:
        return "-"
    words = [f"{_number(one['worst'])}{'' if one['met'] else ' (NOT EQUAL)'}" for one in record["equality"]]
    return ", ".join(words)


def _number(value: float | None) -> str:
    if value is None:
        return "not a number"
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2g}"


def _on(record: Record) -> str:
    machine, repeats = record["machine"], record["repeats"]
    where = machine["accelerator"] or f"{machine['threads']} threads of {machine['processor']}"
    libraries = ", ".join(f"{name} {machine[name]}" for name in ("torch", "transformers", "trl", "peft"))
    return (
        f"Written by `make bench` on {where}; {libraries}. Both sides take the same steps by turns, in one process "
        f"that is the comparison's own; ratios are medians of {repeats} repeats or more (memory: one process a side). "
        "The last column lists, in the order of `equality` in bench.json, how far the results of the two sides are "
        "apart."
    )


def _settings(records: Sequence[Record]) -> str:
    lines = []
    for record in records:
        tried = record["details"].get("tried")
        if tried:
            told = ", ".join(f"{label}: {seconds:.2f} s" for label, seconds in tried.items())
            lines.append(f"* {record['opponent']}: {told}")
    return "What the opponents' settings were chosen from (seconds of one step or call):\n\n" + "\n".join(
        dict.fromkeys(lines)
    )


def _sweep(sweep: Record) -> list[str]:
    """Say what sharing saves and how cost grows, as far as it was measured."""
    parts = []
    for shared in filter(None, map(sweep.get, ("sweep_sharing", "whole_sweep_sharing"))):
        alone = ", ".join(f"{name} {cost['seconds']:.0f}" for name, cost in shared["alone"].items())
        parts.append(
            f"{len(shared['rows'])} rows of the {shared['suite']} took {shared['ours']:.0f} s; its trained methods "
            f"alone, each from an empty cache, {shared['theirs']:.0f} s ({alone}): {shared['ratio']:.2f} of it (CPU "
            f"seconds {shared['cpu_ratio']:.2f}; bar ≤ {shared['bar']:g}, {'met' if shared['met'] else 'missed'})."
        )
    if records := sweep.get("growth"):
        head = "| what grows | of what | size | ours | opponent's | unit |\n|---|---|---|---|---|---|"
        rows = [f"| {one['axis']} | {one['what']} against {one['opponent']} | {one['size']} | {one['ours']:.2f} "
                f"| {one['theirs']:.2f} | {one['unit']} |" for one in records]  # fmt: skip
        parts.append("\n".join([head, *rows]))
    return parts


def plot(records: Sequence[Record]) -> bytes:
    """Return an SVG: speed-ups on the left, shares on the right, each with its spread and its bar."""
    with plt.rc_context(_STYLE):
        height = 1.2 + 0.34 * max(4, sum(record["name"] not in SHARES for record in records))
        figure, (left, right) = plt.subplots(1, 2, figsize=(11, height), layout="constrained", width_ratios=(3, 2))
        _bars(left, [record for record in records if record["name"] not in SHARES], "times faster than the opponent")
        _bars(right, [record for record in records if record["name"] in SHARES], "share (memory: less is better)")
        stream = io.BytesIO()
        figure.savefig(stream, format="svg", metadata={"Date": None})
        plt.close(figure)
    return stream.getvalue()


def _bars(axes: Any, records: Sequence[Record], title: str) -> None:
    for place, record in enumerate(records):
        colour = _MET if record["met"] else _MISSED
        low, high = record["ratio"] - record["ratio_low"], record["ratio_high"] - record["ratio"]
        axes.barh(place, record["ratio"], color=colour, xerr=[[low], [high]], error_kw={"elinewidth": 1})
        axes.plot([record["bar"]] * 2, [place - 0.45, place + 0.45], color="black", linewidth=1.5)
    labels = [f"{record['name']}, {'LoRA' if 'LoRA' in record['work'] else 'full'}" for record in records]
    axes.set_yticks(range(len(records)), labels)
    axes.invert_yaxis()
    axes.set_xlabel(f"{title}; black: the bar")


def main(argv: Sequence[str] | None = None) -> int:
    """Publish the results of a folder."""
    parser = argparse.ArgumentParser(prog="python -m alignarena.benchmarks.perf.publish", description=__doc__)
    parser.add_argument("folder", nargs="?", default="runs/bench", help="where bench.json is, and sweep.json")
    args = parser.parse_args(argv)
    folder = Path(args.folder)
    try:
        publish(read_json(folder / FILE, []), read_json(folder / SWEEP, {}))
    except AlignArenaError as error:
        print("bench:", error, file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
