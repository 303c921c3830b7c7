"""Results for a session or a notebook: they show their leaderboard and draw the report's plots."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from functools import partial
from html import escape
from typing import Any

from matplotlib import pyplot as plt
from rich.console import Console

from alignarena.core.errors import BadInput, nearest
from alignarena.core.text import printable
from alignarena.reports import curves, exact_plots, plots
from alignarena.reports.style import styled
from alignarena.reports.table import Table
from alignarena.reports.tables import READ
from alignarena.reports.terminal import SHOWN, print_results
from alignarena.reports.tracks import tracks
from alignarena.results.frame import Results

_PLOT = "plot_"


class ShownResults(Results):
    """Results that show themselves. Beside the methods here there is a ``plot_NAME()`` for each of :attr:`plots`."""

    def __repr__(self) -> str:
        """Return what ``alignarena run`` prints at its end."""
        text = io.StringIO()
        print_results(self, Console(file=text, width=120, color_system=None, force_jupyter=False))
        return "\n".join(line.rstrip() for line in text.getvalue().splitlines())

    def _repr_html_(self) -> str:
        """Return the leaderboard as HTML, for notebooks; names are text, never markup."""
        columns = [column for column in READ if column.name in SHOWN]
        return "\n".join(f"{_heading(track.title)}{_html(track.board)}" for track in tracks(self, columns))

    @property
    def plots(self) -> list[str]:
        """The names of the report's plots, whether there are data for them or not."""
        return [*plots.FIGURES, *exact_plots.NAMES]

    def plot(self, name: str) -> Any:
        """Draw one of the report's plots.

        Args:
            name: One of :attr:`plots`.

        Returns:
            A matplotlib figure.

        Raises:
            BadInput: An unknown plot, or the runs lack the data for it.
        """
        if name not in self.plots:
            raise BadInput(f"no plot {name!r}{nearest(name, self.plots)}")
        with styled():
            return self._checked(self._drawn(name), name)

    def plot_frontier(self) -> Any:
        """Draw reward against KL to SFT: with the exact frontier where the runs have one, else one point a method.

        Raises:
            BadInput: No method has a reward and a KL.
        """
        with styled():
            found = next(filter(None, map(self._drawn, ("exact-frontier", "reward_kl"))), None)
            return self._checked(found, "frontier")

    def plot_training(self, method: str) -> Any:
        """Draw the training curves of a method.

        Raises:
            BadInput: No such method, or it trained nothing.
        """
        with styled():
            return self._checked(curves.training(self, method), f"training curve of {method}")

    def __getattr__(self, name: str) -> Callable[[], Any]:
        """Return ``plot_NAME`` for a plot of that name, dashes as underscores."""
        for one in self.plots if name.startswith(_PLOT) else ():
            if name == _PLOT + one.replace("-", "_"):
                return partial(self.plot, one)
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *(_PLOT + one.replace("-", "_") for one in self.plots)]

    def _drawn(self, name: str) -> Any | None:
        if name in plots.FIGURES:
            return plots.FIGURES[name][0](self)
        return next((made for one, _, made in exact_plots.draw(self) if one == name), None)

    def _checked(self, figure: Any | None, name: str) -> Any:
        if figure is None:
            raise BadInput(f"{self._where} has no data for the plot {name!r}")
        plt.close(figure)  # else a notebook that shows what pyplot holds would show it twice
        _let_notebooks_show_figures()
        return figure


def _let_notebooks_show_figures() -> None:
    """Tell IPython, where it runs, how a figure shows: the report's style draws without any of its windows."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is not None:
        from IPython.core.pylabtools import select_figure_formats

        select_figure_formats(shell, {"png"})


def _heading(title: str) -> str:
    return f"<h4>{escape(title)}</h4>" if title else ""


def _html(board: Table) -> str:
    rows = [f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in board.shown]
    head = "".join(f"<th>{_text(heading)}</th>" for heading in board.headings)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _text(value: Any) -> str:
    return escape(printable(str(value))) or "–"  # noqa: RUF001
