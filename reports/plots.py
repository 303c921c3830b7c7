"""The plots of a report: each takes results and returns a figure, or nothing where the data for it are missing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from alignarena.core.files import atomic_write
from alignarena.reports import cost, curves, exact_plots, over_training, plane, wins
from alignarena.reports.frontier import Frontier, frontiers, is_analytic_kl
from alignarena.reports.style import LINE_STYLES, Plot, figure, look, name_beside, plot_of, styled
from alignarena.results.exact import EVALUATOR, in_limit
from alignarena.results.frame import Results
from alignarena.results.stats import Interval

_KL_TICKS = (0, 0.1, 0.5, 1, 2, 5, 10, 20, 50, 100, 200)  # nats
_NEAREST_TICKS = 0.09  # of the axis


def gold(results: Results) -> Any | None:
    """Gold reward with 95 % intervals, one line a method."""
    found = _intervals(results, "gold")
    if not found:
        return None
    # A failed run keeps its line, empty: left out, it would look as if it had not been tried.
    labels = [label for label in _compared(results) if label in found or results.entry(label).status == "FAILED"]
    drawn, axes = figure(5.6, 0.9 + 0.36 * len(labels))
    for place, label in enumerate(labels):
        colour, marker = look(label)
        if label not in found:
            axes.annotate("FAILED", (0.01, place), xycoords=("axes fraction", "data"), va="center", color=colour)
            continue
        _whisker(axes, found[label], place, colour)
        axes.plot(found[label].mean, place, marker, color=colour, markersize=7)
        if results.entry(label).is_baseline:
            axes.axvline(found[label].mean, color=colour, linestyle=(0, (4, 3)), linewidth=1)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(f"{_gold_name(results)}, mean and 95 % interval")
    return drawn


def reward_kl(results: Results) -> Any | None:
    """Gold reward (the proxy's where there is no gold) against the distance to SFT."""
    how = "exact" if _is_exact(results) else "on own samples"
    for metric, name in (("gold", _gold_name(results)), ("proxy_reward", "reward model score")):
        drawn = _scatter(results, ("kl", f"KL to SFT {how} (nats, square-root scale)"), (metric, name))
        if drawn is not None:
            return _with_frontiers(drawn, [one for one in frontiers(results) if one.metric == metric])
    return None


def _with_frontiers(drawn: Any, found: Sequence[Frontier]) -> Any:
    """Draw each envelope, linear in sqrt(KL) as it is between its points; the axis is so too."""
    [axes] = drawn.axes
    axes.set_xscale("function", functions=(_root, np.square))
    axes.set_xlim(left=0)
    axes.set_xticks(_apart(_KL_TICKS, axes.get_xlim()[1]))
    axes.xaxis.set_major_formatter(matplotlib.ticker.StrMethodFormatter("{x:g}"))
    for number, one in enumerate(found):
        name = f"frontier of trained policies{one.suite and f' ({one.suite})'}"
        style = {"linestyle": LINE_STYLES[number % len(LINE_STYLES)], "linewidth": 1.2, "zorder": 1.5}
        axes.plot(one.envelope.kl, one.envelope.reward, color=matplotlib.rcParams["text.color"], label=name, **style)
    drawn.legends[0].remove()
    name_beside(drawn)
    return drawn


def _apart(ticks: Sequence[float], most: float) -> list[float]:
    """The ticks up to the most that stand apart on a square-root scale."""
    kept: list[float] = []
    for tick in ticks:
        if tick <= most and (not kept or _root(tick) - _root(kept[-1]) > _NEAREST_TICKS * _root(most)):
            kept.append(tick)
    return kept


def _root(kl: Any) -> Any:
    return np.sqrt(np.maximum(kl, 0.0))


def gold_proxy(results: Results) -> Any | None:
    """Gold reward against the reward model's score: going right without going up is over-optimisation."""
    drawn = _scatter(results, ("proxy_reward", "proxy: reward model score"), ("gold", _gold_name(results)))
    return drawn if drawn is None else _with_moves(drawn, results)


def _with_moves(drawn: Any, results: Results) -> Any:
    """Join each method with the SFT policy that its training began from."""
    [axes], scored = drawn.axes, [_intervals(results, metric) for metric in ("proxy_reward", "gold")]
    for label, entry in results.entries.items():
        ends = [one for one in (entry.baseline, label) if all(one in metric for metric in scored)]
        if len(ends) == 2 and entry.method != "base":
            across, up = ([metric[one].mean for one in ends] for metric in scored)
            axes.plot(across, up, color=look(label)[0], linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    return drawn


def lengths(results: Results) -> Any | None:
    """Lengths of the completions: box from quartile to quartile, whiskers to the 5th and 95th percentile."""
    found = {label: results.samples(label, "length") for label in results.methods}
    found = {label: samples for label, samples in found.items() if samples}
    if not found:
        return None
    drawn, axes = figure(5.6, 0.9 + 0.36 * len(found))
    for place, (label, samples) in enumerate(found.items()):
        values = [value for numbers, _ in samples for value in numbers]
        colour, marker = look(label)
        line = {"color": colour}
        axes.boxplot(
            values, positions=[place], orientation="horizontal", widths=0.5, whis=(5, 95), showfliers=False,
            boxprops=line, whiskerprops=line, capprops=line, medianprops=line | {"linewidth": 2},
        )  # fmt: skip
        axes.plot(sum(values) / len(values), place, marker, color=colour, markersize=6)
    axes.set_yticks(range(len(found)), list(found))
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("length (tokens); the marker is the mean")
    return drawn


FIGURES: dict[str, tuple[Callable[[Results], Any | None], str]] = {
    "gold": (gold, "Gold reward of each method with its 95 % interval; the dashed line is SFT"),
    "reward_kl": (reward_kl, "Reward against KL to SFT, one point a method, and the best reached at each KL"),
    "gold_proxy": (gold_proxy, "Gold reward against the reward model's score, one point a method"),
    "over_training": (over_training.plot, "Training reward and distance to where training began"),
    "win_matrix": (wins.plot, "Share of prompts that the row's method wins against the column's"),
    "plane": (plane.plot, "Helpful against harmless, one point a method"),
    "cost": (cost.plot, "Gain over SFT against what was charged beyond SFT"),
    "lengths": (lengths, "Distribution of completion lengths of each method"),
}


def draw(results: Results) -> list[Plot]:
    """Draw every plot that the results have data for; training curves are named ``training-METHOD``."""
    trained = curves.each(results)
    plots: list[Plot] = []
    with styled():
        for name, (make, caption) in FIGURES.items():
            plots += _drawn(make(results), name, caption)
        for name, caption, made in exact_plots.draw(results):
            plots += _drawn(made, name, caption)
    return plots + [plot for one in trained for plot in one]


def write_plots(plots: Sequence[Plot], folder: Path) -> None:
    """Write each plot as SVG and PNG."""
    for plot in plots:
        atomic_write(folder / f"{plot.name}.svg", plot.svg)
        atomic_write(folder / f"{plot.name}.png", plot.png)


def _drawn(made: Any | None, name: str, caption: str) -> list[Plot]:
    return [] if made is None else [plot_of(name, caption, made)]


def _compared(results: Results) -> list[str]:
    return [label for label, entry in results.entries.items() if not in_limit(entry)]


def _is_exact(results: Results) -> bool:
    return EVALUATOR in set(results.frame["evaluator"])


def _gold_name(results: Results) -> str:
    return "gold reward" if _is_exact(results) else "gold reward (0 to 1)"


def _intervals(results: Results, metric: str) -> dict[str, Interval]:
    found = {label: results.interval(label, metric) for label in _compared(results)}
    return {label: interval for label, interval in found.items() if math.isfinite(interval.mean)}


def _scatter(results: Results, across: tuple[str, str], up: tuple[str, str]) -> Any | None:
    horizontal, vertical = _intervals(results, across[0]), _intervals(results, up[0])
    labels = [label for label in results.methods if label in horizontal and label in vertical]
    if not labels:
        return None
    drawn, axes = figure(5.8, 3.5)
    for label in labels:
        colour, marker = look(label)
        x, y = horizontal[label], vertical[label]
        analytic = across[0] == "kl" and is_analytic_kl(results.entry(label))
        if x.known:
            axes.plot([x.low, x.high], [y.mean, y.mean], color=colour, linewidth=1, alpha=0.7)
        if y.known:
            axes.plot([x.mean, x.mean], [y.low, y.high], color=colour, linewidth=1, alpha=0.7)
        face, name = ("none", f"{label} (KL: a bound)") if analytic else (colour, label)
        style = {"color": colour, "markerfacecolor": face, "markersize": 8, "clip_on": False, "label": name}
        axes.plot(x.mean, y.mean, marker, zorder=3, **style)
    axes.margins(0.08)
    name_beside(drawn)
    axes.set_xlabel(across[1])
    axes.set_ylabel(up[1])
    return drawn


def _whisker(axes: Any, interval: Interval, place: int, colour: str) -> None:
    if interval.known:
        axes.plot([interval.low, interval.high], [place, place], color=colour, linewidth=2.4, solid_capstyle="butt")
