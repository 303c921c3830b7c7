"""Training curves: a panel a loss and metric, a line a fit. Where there are many figures, each core draws some."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from alignarena.reports.style import LINE_STYLES, Plot, equal_panels, look, plot_of, styled
from alignarena.results.frame import Results

# Bookkeeping of a training step: not worth a curve.
_NOT_CURVES = frozenset({"fit", "phase", "step", "seconds", "tokens", "learning_rate"})
# What is drawn first where a method logged more than can be read; the end of a name, as losses prefix theirs.
_TELLING = ("loss", "scores", "reward", "kl", "accuracy", "margin", "finished", "entropy", "kept_rows", "clipfrac")
MOST_PANELS = 6  # of one method
MOST_TRAINED = 40  # methods with training curves; a study of many worlds would not open any more
_MOST_POINTS = 400  # of one curve; more cannot be seen
_MANY = 8  # figures from which on it pays to start further processes, a second and a half each

Lines = dict[int, tuple[list[float], list[float]]]  # steps and values, by fit


def each(results: Results) -> Iterable[list[Plot]]:
    """Draw the training curves of each method, ``training-METHOD``; nothing for one that logged none.

    Many are drawn by processes of their own, one a core, which begin at once: read them last.
    """
    wanted = [(label, found) for label in results.methods[:MOST_TRAINED] if (found := panels(results, label))]
    if len(wanted) < _MANY:
        return [_plot(*one) for one in wanted]
    from joblib import Parallel, cpu_count, delayed  # a third of a second that small reports need not pay

    return Parallel(n_jobs=cpu_count(), return_as="generator")(delayed(_plot)(*one) for one in wanted)  # type: ignore[no-any-return]


def _plot(label: str, found: dict[str, Lines]) -> list[Plot]:
    with styled():
        name = f"training-{label.replace('/', '-')}"
        return [plot_of(name, f"Training curves of {label}", _figure(label, found))]


def training(results: Results, label: str) -> Any | None:
    """Return a figure of the training curves of one method, of the first seed that has any."""
    found = panels(results, label)
    return _figure(label, found) if found else None


def panels(results: Results, label: str) -> dict[str, Lines]:
    """Return the most telling curves of a method by their titles."""
    rows = next((cell.metrics for cell in results.entry(label).cells.values() if cell.metrics), [])
    return _most_telling(_curves(rows))


def _figure(label: str, found: dict[str, Lines]) -> Any:
    columns = min(3, len(found))
    height = math.ceil(len(found) / columns)
    drawn, places = equal_panels(height, columns)
    for axes, (title, lines) in zip(places, found.items(), strict=False):
        _panel(axes, title, lines, look(label)[0])
    for axes in places[len(found) :]:
        axes.set_visible(False)
    for axes in places[max(0, len(found) - columns) : len(found)]:
        axes.set_xlabel("optimiser step")
    return drawn


def _panel(axes: Any, title: str, lines: Lines, colour: str) -> None:
    for number, (fit, (steps, values)) in enumerate(lines.items()):
        style, dot = LINE_STYLES[number % len(LINE_STYLES)], "o" if len(steps) == 1 else ""
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


def _most_telling(found: dict[str, Lines]) -> dict[str, Lines]:
    """The panels worth most where there are too many, those of the last losses first, in their own order."""
    order = {title: place for place, title in enumerate(found)}
    losses = list(dict.fromkeys(title.partition(": ")[0] for title in found))[::-1]

    def worth(title: str) -> tuple[int, int, int]:
        loss, _, metric = title.partition(": ")
        name = metric.rpartition("/")[2]
        telling = _TELLING.index(name) if name in _TELLING else len(_TELLING)
        return telling, losses.index(loss), order[title]

    kept = sorted(found, key=worth)[:MOST_PANELS]
    return {title: found[title] for title in sorted(kept, key=order.__getitem__)}


def _thinned(steps: list[float], values: list[float]) -> tuple[list[float], list[float]]:
    stride = math.ceil(len(steps) / _MOST_POINTS)
    return steps[::stride], values[::stride]
