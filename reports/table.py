"""One table of a report: as CSV (every number, full precision), and as Markdown and LaTeX (rounded, to be read)."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alignarena.core.files import atomic_write
from alignarena.reports.text import LATEX, MARKDOWN, printable


@dataclass(frozen=True)
class Shown:
    """One table cell as read: rounded text, its interval, what to sort by, and why it is empty."""

    text: str = ""
    interval: str = ""
    sort: float | str = ""
    reason: str = ""
    limits: tuple[float, float] | None = None  # of the interval, where it is to be drawn

    def __str__(self) -> str:
        """Return the text with its interval."""
        return f"{self.text} {self.interval}".strip()

    @property
    def sort_key(self) -> str:
        """What a page sorts by: six digits, as processors differ in a number's last ones."""
        return f"{self.sort:.6g}" if is_number(self.sort) else str(self.sort)

    @property
    def worth_a_column(self) -> bool:
        """Whether why it is empty says something of the result: not estimable, rather than not scored."""
        return self.reason.startswith("not estimable")


@dataclass(frozen=True)
class Table:
    """A table: its raw values, and the same as read."""

    name: str
    title: str
    caption: str
    columns: list[str]
    rows: list[list[Any]]
    headings: list[str]
    shown: list[list[Shown]]

    def numeric(self, column: int) -> bool:
        """Whether a column, as read, holds numbers."""
        return any(is_number(row[column].sort) for row in self.shown)


def plain(name: str, title: str, caption: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    """Return a table whose cells are read as they are, numbers to four decimals."""
    values = [list(row) for row in rows]
    shown = [[_plain(value) for value in row] for row in values]
    headings = [name.replace("_", " ") for name in columns]
    return Table(name, title, caption, list(columns), values, headings, shown)


def write_tables(tables: Iterable[Table], folder: Path) -> None:
    """Write each table as NAME.csv, NAME.md and NAME.tex."""
    for table in tables:
        atomic_write(folder / f"{table.name}.csv", csv_text(table))
        atomic_write(folder / f"{table.name}.md", markdown(table))
        atomic_write(folder / f"{table.name}.tex", latex(table))


def csv_text(table: Table) -> str:
    """Return the raw values: six decimals at most, nothing where there is no number."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows([[_exact(value) for value in row] for row in table.rows])
    return out.getvalue()


def markdown(table: Table) -> str:
    """Return the table as read, in Markdown; an en dash where there is no number."""
    rows = [table.headings, *([str(cell) or "\u2013" for cell in row] for row in table.shown)]
    lines = [f"| {' | '.join(cell.translate(MARKDOWN) for cell in row)} |\n" for row in rows]
    lines.insert(1, f"| {' | '.join(['---'] * len(table.headings))} |\n")
    return "".join(lines)


def latex(table: Table) -> str:
    """Return the table as read, as a LaTeX tabular for the booktabs package."""
    rows = [[str(cell) or "--" for cell in row] for row in table.shown]
    alignment = "".join("r" if table.numeric(i) else "l" for i in range(len(table.headings)))
    lines = [
        "% \\usepackage{booktabs}",
        f"\\begin{{tabular}}{{{alignment}}}",
        "\\toprule",
        _latex_row(table.headings),
        "\\midrule",
        *map(_latex_row, rows),
        "\\bottomrule",
        "\\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def measured(mean: float, low: float, high: float, digits: int = 3) -> Shown:
    """Return a number with its interval, where there is one."""
    if not is_number(mean):
        return Shown(reason="not estimable")
    if not (is_number(low) and is_number(high)):
        return Shown(number(mean, digits), sort=float(mean))
    limits = f"[{number(low, digits)}, {number(high, digits)}]"
    return Shown(number(mean, digits), limits, float(mean), limits=(float(low), float(high)))


def number(value: float, digits: int) -> str:
    """Return a number rounded, with thousands separated; no minus before a zero."""
    text = f"{value:,.{digits}f}"
    return text.lstrip("-") if not text.strip("-0.,") else text


def is_number(value: Any) -> bool:
    """Whether a value is a number and there is one."""
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and math.isfinite(value)


def _plain(value: Any) -> Shown:
    if is_number(value):
        whole = float(value).is_integer() and not (isinstance(value, float) and abs(value) <= 1)
        return Shown(number(value, 0 if whole else 4), sort=float(value))
    text = "" if _is_missing(value) else printable(str(value))
    return Shown(text, sort=text, reason="" if text else "none recorded")


def _exact(value: Any) -> str:
    if is_number(value):
        text = f"{value:.6f}".rstrip("0").rstrip(".")
        return "0" if text == "-0" else text
    return "" if _is_missing(value) else printable(str(value))


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(cell.translate(LATEX) for cell in cells) + r" \\"
