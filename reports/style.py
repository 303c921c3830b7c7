"""How plots look: one colour and marker a method everywhere, the same bytes every time."""

from __future__ import annotations

import hashlib
import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

# Told apart by readers with any colour vision, and visible (3:1) on white and on the dark page alike.
BLUE, ORANGE, GREEN, PURPLE = "#2277bb", "#d55e00", "#009e73", "#b8609b"
SKY, OCHRE, BROWN, VIOLET = "#3b93c4", "#b07d00", "#94653c", "#7a6ad0"
CRIMSON = "#c8375a"
_KNOWN = {
    "base": ("#8a8a8a", "X"),
    "sft": ("#66727d", "s"),
    "prompted": ("#8a8a8a", "P"),
    "best_of_n": (OCHRE, "D"),
    "dpo": (BLUE, "o"),
    "ppo": (ORANGE, "^"),
    "rejection_sampling": (GREEN, "v"),
    "cpl": (VIOLET, "p"),
    "hir": (BROWN, "<"),
    "rest": (SKY, ">"),
    "rlaif": (PURPLE, "h"),
    "constitutional_ai": (CRIMSON, "d"),
}
_COLOURS = [BLUE, ORANGE, GREEN, PURPLE, SKY, OCHRE, BROWN, VIOLET]
_MARKERS = ["o", "^", "v", "D", "p", "h", "P", "*", "<", ">"]
LINE_STYLES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
_INK = "#1b1f24"  # axes and text; becomes the page's own text colour where a plot is inlined
_RC: dict[str, Any] = {
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.titlecolor": _INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#8a939c",
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "lines.linewidth": 1.6,
}


@dataclass(frozen=True)
class Plot:
    """A drawn plot: a file stem, what it shows, and its bytes."""

    name: str
    caption: str
    svg: str
    png: bytes


def plot_of(name: str, caption: str, drawn: Any) -> Plot:
    """Return a figure as a plot, and close it."""
    return Plot(name, caption, *render(drawn, name))


def look(label: str) -> tuple[str, str]:
    """Return the colour and marker of a method, by its name alone: the same in every plot and every report."""
    name = label.rpartition("/")[2]
    if name in _KNOWN:
        return _KNOWN[name]
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    return _COLOURS[number % len(_COLOURS)], _MARKERS[number // len(_COLOURS) % len(_MARKERS)]


def figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Any, Any]:
    """Return a figure (inches) and its axes (an array where there are several)."""
    drawn, axes = plt.subplots(rows, columns, figsize=(width, height), squeeze=rows == columns == 1)
    return drawn, axes


_NAME_HEIGHT, _LETTER_WIDTH = 0.21, 0.085  # inches
_PANEL, _GAP, _EDGE, _BELOW = (2.3, 1.2), (0.65, 0.6), 0.3, 0.5  # inches; the gaps hold ticks and titles


def equal_panels(rows: int, columns: int) -> tuple[Any, list[Any]]:
    """Return a figure of many small axes and these, each in its place: matplotlib would take thrice as long to lay out.

    Text that needs more room than a tick's numbers or a title of one line would not fit.
    """
    width, height = _EDGE + columns * (_PANEL[0] + _GAP[0]), _EDGE + _BELOW + rows * _PANEL[1] + (rows - 1) * _GAP[1]
    with plt.rc_context({"figure.constrained_layout.use": False}):
        drawn, axes = plt.subplots(rows, columns, figsize=(width, height), squeeze=False)
    drawn.subplots_adjust(left=_GAP[0] / width, right=1 - _EDGE / width, bottom=_BELOW / height,
                          top=1 - _EDGE / height, wspace=_GAP[0] / _PANEL[0], hspace=_GAP[1] / _PANEL[1])  # fmt: skip
    return drawn, list(axes.ravel())


def name_beside(drawn: Any, handles: Sequence[Any] = (), labels: Sequence[str] = ()) -> None:
    """Put names beside a figure, in as many columns as its height asks for: at the points they would lie on each other.

    Args:
        drawn: A figure.
        handles: What is named; what its axes hold labels of, if not given.
        labels: Their names.
    """
    if not handles:
        named = [axes.get_legend_handles_labels() for axes in drawn.axes]
        handles, labels = [one for some, _ in named for one in some], [one for _, some in named for one in some]
    fitting = max(1, int((drawn.get_figheight() - 0.2) / _NAME_HEIGHT))
    columns = math.ceil(len(labels) / fitting)
    further = (columns - 1) * (0.5 + _LETTER_WIDTH * max(map(len, labels)))
    drawn.set_figwidth(drawn.get_figwidth() + further)
    drawn.legend(handles, labels, loc="outside right upper", ncols=columns)


@contextmanager
def styled() -> Iterator[None]:
    """Draw in the report's style inside this context."""
    with plt.rc_context(_RC):
        yield


def render(figure: Any, name: str) -> tuple[str, bytes]:
    """Return a figure as SVG text and PNG bytes, the same for the same figure, and close it."""
    svg, png = io.StringIO(), io.BytesIO()
    if figure.get_layout_engine() is not None:
        figure.draw_without_rendering()  # lays it out, which would else be done anew for each format
        figure.set_layout_engine("none")
    with plt.rc_context({"svg.hashsalt": name}):
        metadata = {"Date": None, "Creator": None}
        figure.savefig(svg, format="svg", metadata=metadata, facecolor="white")
        figure.savefig(png, format="png", dpi=144, metadata={"Software": None}, facecolor="white")
    plt.close(figure)
    return svg.getvalue(), png.getvalue()


def inline(svg: str, name: str, label: str) -> str:
    """Return a plot for the page: its own ids, no fixed size, and ink and paper that follow light and dark.

    Args:
        svg: As :func:`render` gives it.
        name: Prefix of its ids, unique on the page.
        label: What it shows, for readers who cannot see it; plain text from this package.
    """
    body = svg[svg.index("<svg") :]
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{name}-", body)
    body = re.sub(r"\n *<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = body.replace(_INK, "currentColor").replace("fill: #ffffff", "fill: none")
    width = re.search(r'viewBox="0 0 ([0-9.]+)', body)
    assert width is not None
    tag = f'<svg role="img" aria-label="{label}" style="max-width: {float(width[1]) * 96 / 72:.0f}px"'
    return re.sub(r'<svg\b(.*?)\s+width="[^"]*"(.*?)\s+height="[^"]*"', rf"{tag}\1\2", body, count=1, flags=re.DOTALL)
