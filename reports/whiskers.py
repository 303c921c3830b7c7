"""Intervals drawn inside the cells of a table: a line from limit to limit, a dot at the mean, a tick where SFT is."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from markupsafe import Markup

from alignarena.reports.table import Shown, Table, is_number

_WIDTH, _HEIGHT, _MARGIN = 96, 12, 4  # pixels


def whiskers(table: Table, looks: Mapping[str, str], starts: Collection[str]) -> list[list[Markup]]:
    """Return a small drawing for each cell, empty where a cell has no interval.

    Args:
        table: As read; its first column names the methods.
        looks: The colour of each method.
        starts: The methods that the others are compared with; a difference to them is measured from 0.
    """
    columns = [_column([row[i] for row in table.shown], table, i, starts) for i in range(len(table.headings))]
    return [
        [_drawn(cell, *column, colour) for cell, column in zip(row, columns, strict=True)]
        for row in table.shown
        for colour in [looks.get(row[0].text, "currentColor")]
    ]


Span = tuple[float, float]


def _column(cells: list[Shown], table: Table, place: int, starts: Collection[str]) -> tuple[Span | None, float | None]:
    """The range that a column's intervals cover with the tick, and the tick."""
    limits = [cell.limits for cell in cells if cell.limits]
    if not limits:
        return None, None
    ticks = [row[place] for row in table.shown if row[0].text in starts]
    known = [float(cell.sort) for cell in ticks if is_number(cell.sort)]
    tick = known[0] if known else 0.0 if ticks else None  # SFT has no difference to itself
    ends = [end for pair in limits for end in pair] + ([] if tick is None else [tick])
    return (min(ends), max(ends)), tick


def _drawn(cell: Shown, span: Span | None, tick: float | None, colour: str) -> Markup:
    if not cell.limits or span is None or span[0] == span[1]:
        return Markup()

    def place(value: float) -> str:
        share = (value - span[0]) / (span[1] - span[0])
        return f"{_MARGIN + share * (_WIDTH - 2 * _MARGIN):.1f}"

    low, high, mean = place(cell.limits[0]), place(cell.limits[1]), place(float(cell.sort))
    middle = _HEIGHT // 2
    line = f'<path d="M{low} {middle}H{high}" stroke="{colour}" stroke-width="3"/>'
    at = "" if tick is None else f'<path d="M{place(tick)} 0V{_HEIGHT}" stroke="currentColor" stroke-dasharray="2 2"/>'
    dot = f'<circle cx="{mean}" cy="{middle}" r="3.5" fill="{colour}"/>'
    size = f'width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}"'
    return Markup(f'<svg class="whisker" aria-hidden="true" {size}>{at}{line}{dot}</svg>')
