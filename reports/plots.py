"""The plots of a report: each takes results and returns a figure, or nothing where the data for it are missing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from alignarena.core.files import atomic_write
from alignarena.reports import cost, exact_plots, over_training, plane, wins
from alignarena.reports.frontier import Frontier, frontiers, is_analytic_kl
from alignarena.reports.style import Plot, equal_panels, figure, look, name_beside, plot_of, styled
from alignarena.results.exact import EVALUATOR, in_limit
from alignarena.results.frame import Results
from alignarena.results.stats import Interval

# Bookkeeping of a training step: not worth a curve.
_NOT_CURVES = frozenset({"fit", "phase", "step", "seconds", "tokens", "learning_rate"})
# What is drawn first where a method logged more than can be read; the end of a name, as losses prefix theirs.
_TELLING = ("loss", "scores", "reward", "kl", "accuracy", "margin", "finished", "entropy", "kept_rows", "clipfrac")
MOST_PANELS = 6  # of one method
MOST_TRAINED = 40  # methods with training curves; a study of many worlds would not open any more
_KL_TICKS = (0, 0.1, 0.5, 1, 2, 5, 10, 20, 50, 100, 200)  # nats
_NEAREST_TICKS = 0.09  # of the axis
_MOST_POINTS = 400  # of one curve; more cannot be seen


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
        style = {"linestyle": _STYLES[number % len(_STYLES)], "linewidth": 1.2, "zorder": 1.5}
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


def training(results: Results, label: str) -> Any | None:
    """Training curves of one method: a panel a loss and metric, a line a fit, of the first seed that has any."""
    rows = next((cell.metrics for cell in results.entry(label).cells.values() if cell.metrics), [])
    panels = _most_telling(_curves(rows))
    if not panels:
        return None
    columns = min(3, len(panels))
    height = math.ceil(len(panels) / columns)
    drawn, places = equal_panels(height, columns)
    for axes, (title, lines) in zip(places, panels.items(), strict=False):
        _panel(axes, title, lines, look(label)[0])
    for axes in places[len(panels) :]:
        axes.set_visible(False)
    for axes in places[max(0, len(panels) - columns) : len(panels)]:
        axes.set_xlabel("optimiser step")
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
    plots: list[Plot] = []
    with styled():
        for name, (make, caption) in FIGURES.items():
            plots += _drawn(make(results), name, caption)
        for name, caption, made in exact_plots.draw(results):
            plots += _drawn(made, name, caption)
        for label in results.methods[:MOST_TRAINED]:
            name = f"training-{label.replace('/', '-')}"
            plots += _drawn(training(results, label), name, f"Training curves of {label}")
    return plots


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


Lines = dict[int, tuple[list[float], list[float]]]  # steps and values, by fit
_STYLES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))


def _panel(axes: Any, title: str, lines: Lines, colour: str) -> None:
    for number, (fit, (steps, values)) in enumerate(lines.items()):
        style, dot = _STYLES[number % len(_STYLES)], "o" if len(steps) == 1 else ""
        axes.plot(steps, values, color=colour, linestyle=style, marker=dot, markersize=4, label=f"fit {fit}")
    axes.set_title(title, fontsize=9)
    axes.locator_params(nbins=3)
    if len(lines) > 1:
        axes.legend(fontsize=8)


def _curves(rows: Sequence[dict[str, Any]]) -> dict[str, Lines]:
    """Curves by "loss name: metric": losses in the order they were fitted, the loss itself before its metrics."""
    curves: dict[str, dict[str, Lines]] = {}
    for row in rows:
        of_loss = curves.setdefault(str(row.get("loss_name", "training")), {})
        for metric, value in row.items():
            if metric in _NOT_CURVES or isinstance(value, bool) or not isinstance(value, int | float):
                continue
            steps, values = of_loss.setdefault(metric, {}).setdefault(int(row.get("fit", 0)), ([], []))
            steps.append(row.get("step", len(steps)))
            values.append(value)
    return {
        f"{loss_name}: {metric}": {fit: _thinned(*line) for fit, line in of_loss[metric].items()}
        for loss_name, of_loss in curves.items()
        for metric in sorted(of_loss, key=lambda metric: (metric != "loss", metric))
    }


def _most_telling(panels: dict[str, Lines]) -> dict[str, Lines]:
    """The panels worth most where there are too many, those of the last losses first, in their own order."""
    order = {title: place for place, title in enumerate(panels)}
    losses = list(dict.fromkeys(title.partition(": ")[0] for title in panels))[::-1]

    def worth(title: str) -> tuple[int, int, int]:
        loss, _, metric = title.partition(": ")
        name = metric.rpartition("/")[2]
        telling = _TELLING.index(name) if name in _TELLING else len(_TELLING)
        return telling, losses.index(loss), order[title]

    kept = sorted(panels, key=worth)[:MOST_PANELS]
    return {title: panels[title] for title in sorted(kept, key=order.__getitem__)}


def _thinned(steps: list[float], values: list[float]) -> tuple[list[float], list[float]]:
    stride = math.ceil(len(steps) / _MOST_POINTS)
    return steps[::stride], values[::stride]
