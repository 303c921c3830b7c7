"""The exact laboratory's plots.

The limit setting shows whether a method is implemented correctly; it ranks nothing, so only its errors are plotted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import matplotlib
import numpy as np
import pandas as pd

from alignarena.reports.exact import LIMIT_TITLE
from alignarena.reports.style import figure, look, name_beside
from alignarena.reports.table import is_number, number
from alignarena.results.exact import NO_KL, exact_summary, exact_table, frontier, setting
from alignarena.results.frame import Results
from alignarena.results.store import RunFolder

_CAPTIONS = {
    "exact-frontier": "Every method's reward and KL against the exact frontier",
    "exact-errors": "Objective bias and learning error of each method, side by side",
    "exact-labels": "J efficiency against labels, one line a method",
    "exact-segments": "J efficiency of each method under return and under regret labels of segments",
}
NAMES = tuple(_CAPTIONS)


def draw(results: Results) -> Iterator[tuple[str, str, Any]]:
    """Yield name, caption and figure of each plot that there are data for."""
    summary = exact_summary(results)
    if summary.empty:
        return
    drawn = {
        "exact-frontier": _frontier(results, exact_table(results)),
        "exact-errors": _errors(summary),
        "exact-labels": _labels(summary),
        "exact-segments": _segments(summary),
    }
    yield from ((name, _CAPTIONS[name], made) for name, made in drawn.items() if made is not None)


def _frontier(results: Results, cells: pd.DataFrame) -> Any | None:
    """One world and seed: the frontier belongs to that seed's reference, and no other seed's policy lies below it."""
    budget = _one_feedback(cells[(cells["setting"] == "budget") & cells["reward"].notna()])
    curves = (_curve(folder) for folder in results.folders if setting(folder) == "budget")
    here, seed, curve = next((one for one in curves if one[2] is not None), (0, 0, None))
    rows = budget[(budget["world"] == here) & (budget["seed"] == seed)]
    if curve is None or rows.empty:
        return None
    drawn, axes = figure(6.4, 3.8)
    ink = matplotlib.rcParams["text.color"]
    axes.plot(*curve, color=ink, linewidth=1.2, label="exact frontier")
    optimum = rows.loc[rows["kl"] <= NO_KL, "kl_from_optimum"].mean()  # of the reference: KL(optimum || reference)
    if math.isfinite(optimum):
        height = float(np.interp(optimum, *curve))
        axes.plot(optimum, height, "*", color=ink, markersize=11, label=r"optimum $\pi^*$")
    for method, points in rows.sort_values("labels", kind="stable").groupby("method", sort=False):
        colour, marker = look(str(method))
        sizes = np.linspace(5, 9, len(points)) if len(points) > 1 else [8.0]
        axes.plot(points["kl"], points["reward"], color=colour, linewidth=0.8, alpha=0.6)
        for size, kl, reward in zip(sizes, points["kl"], points["reward"], strict=True):
            last = size == sizes[-1]
            axes.plot(kl, reward, marker, color=colour, markersize=size, label=str(method) if last else None)
    axes.set_xlabel("KL to the reference (nats)")
    axes.set_ylabel("gold reward")
    axes.set_title(f"budget; world {here}, seed {seed}")
    name_beside(drawn)
    return drawn


def _curve(folder: RunFolder) -> tuple[int, int, tuple[list[float], list[float]] | None]:
    suite = folder.suite
    return (suite["data"].get("world") or {}).get("seed", 0), (suite.get("seeds") or [0])[0], frontier(folder)


def _errors(summary: pd.DataFrame) -> Any | None:
    panels = {name: _main(summary[summary["setting"] == name]) for name in ("limit", "budget")}
    panels = {name: rows[rows["learning_error"].notna()] for name, rows in panels.items()}
    panels = {name: rows for name, rows in panels.items() if len(rows)}
    if not panels:
        return None
    most = max(map(len, panels.values()))
    drawn, grid = figure(4.0 * len(panels), 1.2 + 0.5 * most, 1, len(panels))
    for axes, (name, rows) in zip(np.atleast_1d(grid).ravel(), panels.items(), strict=True):
        _bars(axes, rows)
        axes.set_title(f"limit: {LIMIT_TITLE}" if name == "limit" else _budget_title(rows))
    grey = matplotlib.rcParams["grid.color"]
    solid, hatched = (matplotlib.patches.Patch(facecolor=grey, alpha=a, hatch=h) for a, h in ((1, ""), (0.5, "////")))
    drawn.legend([solid, hatched], ["objective bias", "learning error"], loc="outside lower center", ncols=2)
    return drawn


def _bars(axes: Any, rows: pd.DataFrame) -> None:
    for place, row in enumerate(rows.to_dict("records")):
        colour, _ = look(row["method"])
        for offset, name, style in ((-0.19, "objective_bias", {}), (0.19, "learning_error", {"alpha": 0.5})):
            hatch = {} if name == "objective_bias" else {"hatch": "////"}
            if math.isfinite(row[name]):
                axes.barh(place + offset, row[name], height=0.34, color=colour, **style, **hatch)
            else:
                axes.annotate(" infinite", (0, place + offset), va="center", fontsize=8, color=colour)
            _whisker(axes, row, name, place + offset)
    axes.set_yticks(range(len(rows)), list(rows["method"]))
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("nats")


def _labels(summary: pd.DataFrame) -> Any | None:
    rows = _one_feedback(summary[(summary["setting"] == "budget") & (summary["labels"] > 0)])
    rows = rows[rows["j_efficiency"].notna()].sort_values("labels")
    lines = {str(method): line for method, line in rows.groupby("method") if line["labels"].nunique() > 1}
    if not lines:
        return None
    drawn, axes = figure(6.4, 3.8)
    for method in [name for name in summary["method"].unique() if name in lines]:  # in the suite's order
        line, (colour, marker) = lines[method], look(method)
        axes.plot(line["labels"], line["j_efficiency"], color=colour, marker=marker, label=method)
        axes.fill_between(
            line["labels"], line["j_efficiency_low"], line["j_efficiency_high"], color=colour, alpha=0.15, linewidth=0
        )
    axes.axhline(0, color=look("sft")[0], linestyle=(0, (4, 3)), linewidth=1, label="the reference (SFT)")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(matplotlib.ticker.StrMethodFormatter("{x:,.0f}"))
    axes.set_xlabel("labels charged")
    axes.set_ylabel("J efficiency (1 is the optimum)")
    name_beside(drawn)
    return drawn


def _segments(summary: pd.DataFrame) -> Any | None:
    scored = summary[summary["j_efficiency"].notna() & (summary["kl"] > NO_KL)]  # without SFT
    found = {kind: scored[scored["feedback"] == kind] for kind in ("return", "regret")}
    kinds = {kind: _most_labels(rows).set_index("method") for kind, rows in found.items()}
    methods = list(dict.fromkeys(name for rows in kinds.values() for name in rows.index))
    if not methods:
        return None
    drawn, axes = figure(6.0, 1.2 + 0.5 * len(methods))
    for place, method in enumerate(methods):
        colour, marker = look(method)
        for offset, (kind, rows) in zip((-0.13, 0.13), kinds.items(), strict=True):
            if method in rows.index:
                row, face = rows.loc[method].to_dict(), "none" if kind == "return" else colour
                _whisker(axes, row, "j_efficiency", place + offset, colour)
                axes.plot(row["j_efficiency"], place + offset, marker, color=colour, markerfacecolor=face, markersize=8)
    grey = matplotlib.rcParams["grid.color"]
    shape = {"marker": "o", "linestyle": "", "color": grey}
    hollow, full = (matplotlib.lines.Line2D([], [], markerfacecolor=face, **shape) for face in ("none", grey))
    drawn.legend([hollow, full], ["labelled by return", "labelled by regret"], loc="outside lower center", ncols=2)
    axes.set_yticks(range(len(methods)), methods)
    axes.set_ylim(len(methods) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("J efficiency (1 is the optimum), mean and 95 % interval")
    return drawn


def _whisker(axes: Any, row: dict[Any, Any], name: str, place: float, colour: str | None = None) -> None:
    if is_number(row[f"{name}_low"]):
        colour = colour or matplotlib.rcParams["text.color"]
        axes.plot([row[f"{name}_low"], row[f"{name}_high"]], [place, place], color=colour, linewidth=1.2)


def _main(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a method: of one kind of feedback, at its largest number of labels."""
    return _most_labels(_one_feedback(rows))


def _one_feedback(rows: pd.DataFrame) -> pd.DataFrame:
    kinds = list(rows["feedback"].unique())
    return rows[rows["feedback"] == ("whole" if "whole" in kinds or not kinds else kinds[0])]


def _most_labels(rows: pd.DataFrame) -> pd.DataFrame:
    known = rows[rows["reward"].notna()]
    most = known.sort_values("labels", kind="stable").drop_duplicates("method", keep="last")
    return most.sort_index()


def _budget_title(rows: pd.DataFrame) -> str:
    return f"budget: at most {number(rows['labels'].max(), 0)} labels"
