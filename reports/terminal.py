"""What a run found, in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from alignarena.reports.exact import laboratory
from alignarena.reports.table import Shown
from alignarena.reports.tables import READ
from alignarena.reports.tracks import tracks
from alignarena.results.frame import Results

# What fits a terminal, and what is left out of a narrow one; the page and the CSV have the rest.
SHOWN = ("method", "gold_reward", "gold_vs_sft", "verdict_vs_sft", "on_topic", "win_rate", "kl", "seconds")
_WIDE_ONLY = ("gold_reward", "on_topic", "seconds")
_WIDE = 110
_WITH_INTERVAL = "gold vs SFT"
_VERDICT = "verdict vs SFT"


# Of the exact laboratory's tables, which hold what its leaderboard would and more.
_OF_LABORATORY = ("method", "bar met", "labels", "feedback", "J efficiency, trained prompts", "held out",
                  "J efficiency", "of its own target", "frontier efficiency", "KL (nats)")  # fmt: skip


def print_results(results: Results, console: Console | None = None) -> None:
    """Print what a run found: the exact laboratory's tables where there are such, else the leaderboard."""
    console = console or Console()
    known = laboratory(results)
    if known is None:
        print_leaderboard(results, console)
        return
    for table in filter(None, (known.limit, known.budget)):
        kept = [i for i, heading in enumerate(table.headings) if heading in _OF_LABORATORY]
        console.print(Text(table.title, style="bold"))
        _print([table.headings[i] for i in kept], [[_plain(row[i]) for i in kept] for row in table.shown], console,
               [table.numeric(i) for i in kept])  # fmt: skip
    unit = known.unit.partition(";")[0]
    console.print(Text(f"{unit[:1].upper()}{unit[1:]}."))


def print_leaderboard(results: Results, console: Console) -> None:
    """Print the leaderboard's main columns and what its verdicts are about."""
    names = [name for name in SHOWN if console.width >= _WIDE or name not in _WIDE_ONLY]
    for track in tracks(results, [column for column in READ if column.name in names]):
        if track.title:
            console.print(Text(track.title, style="bold"))
        board = track.board
        rows = [[_text(*cell) for cell in zip(board.headings, row, strict=True)] for row in board.shown]
        _print(board.headings, rows, console, [board.numeric(i) for i in range(len(board.headings))])
    verdicts = results.leaderboard()["verdict_vs_sft"]
    units = sorted({verdict.partition(" (")[2].rstrip(")") for verdict in verdicts if " seed" in verdict})
    if units:
        console.print(Text(f"Verdicts are claims about a {' or a '.join(units)}; brackets are 95 % intervals."))


def _print(headings: Sequence[str], rows: Sequence[Sequence[str]], console: Console, numeric: Sequence[bool]) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for i, heading in enumerate(headings):
        justify: Literal["right", "left"] = "right" if numeric[i] else "left"
        # Headings may break between words; a number must not break.
        widest = max(map(len, [*heading.split(), *(row[i] for row in rows)]))
        table.add_column(heading, justify=justify, min_width=widest)
    for row in rows:
        table.add_row(*map(Text, row))  # not markup: a method's name is the user's and may hold brackets
    console.print(table)


def _plain(cell: Shown) -> str:
    return cell.text or "\u2013"


def _text(heading: str, cell: Shown) -> str:
    if heading == _VERDICT:
        verdict, _, about = cell.text.partition(" (")
        return about.rstrip(")") if verdict == "no verdict" else verdict
    return (str(cell) if heading == _WITH_INTERVAL else cell.text) or "\u2013"
