"""The leaderboard in the terminal."""

from __future__ import annotations

from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from alignarena.reports.tables import READ, leaderboard
from alignarena.results.frame import Results

# What fits a terminal; the page and the CSV have the rest.
_SHOWN = ("method", "gold_reward", "gold_vs_sft", "verdict_vs_sft", "on_topic", "win_rate", "kl", "seconds")
_WITH_INTERVAL = ("gold vs SFT",)


def print_leaderboard(results: Results, console: Console | None = None) -> None:
    """Print the leaderboard's main columns and what its verdicts are about."""
    board = leaderboard(results, [column for column in READ if column.name in _SHOWN])
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, heading in enumerate(board.headings):
        justify: Literal["right", "left"] = "right" if board.numeric(i) else "left"
        table.add_column(heading, justify=justify, no_wrap=heading in ("method", *_WITH_INTERVAL))
    units = set()
    for row in board.shown:
        cells = []
        for heading, cell in zip(board.headings, row, strict=True):
            text = str(cell) if heading in _WITH_INTERVAL else cell.text
            if heading == "verdict vs SFT" and " seed" in text:
                text, _, unit = text.partition(" (")
                units.add(unit.rstrip(")"))
            cells.append(Text(text or "\u2013"))  # not markup: a method's name is the user's and may hold brackets
        table.add_row(*cells)
    console = console or Console()
    console.print(table)
    if units:
        console.print(Text(f"Verdicts are claims about a {' or a '.join(sorted(units))}; brackets are 95 % intervals."))
