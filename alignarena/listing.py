"""What is known by name, as rows, and how rows print: `alignarena list`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any


def _methods() -> Iterable[dict[str, Any]]:
    from alignarena.core.registry import METHODS, load_all

    load_all()
    for _, entry in sorted(METHODS.items()):
        yield {"name": entry.name, "summary": entry.summary, "paper": entry.paper, "family": entry.family,
               "informed": entry.informed}  # fmt: skip


def _suites() -> Iterable[dict[str, Any]]:
    from alignarena.benchmarks.suite_file import SUITES, read_suite_values

    for path in sorted(SUITES.glob("*.yaml")):
        suite = read_suite_values(path.stem)
        yield {"name": path.stem, "summary": suite.values.get("summary", ""), "variants": len(suite.variants) or None}


def _evaluators() -> Iterable[dict[str, Any]]:
    from alignarena.evaluators.registry import EVALUATORS

    for name, entry in sorted(EVALUATORS.items()):
        yield {"name": name, "summary": entry.summary, "role": entry.role}


def _datasets() -> Iterable[dict[str, Any]]:
    from alignarena.benchmarks.datasets import DATASETS

    for name, entry in sorted(DATASETS.items()):
        yield {"name": name, "summary": entry.summary}


def _models() -> Iterable[dict[str, Any]]:
    from alignarena.core.model import EMBEDDED_MODELS

    for name, summary in sorted(EMBEDDED_MODELS.items()):
        yield {"name": name, "summary": summary}


LISTS: Mapping[str, Callable[[], Iterable[dict[str, Any]]]] = {
    "methods": _methods,
    "suites": _suites,
    "evaluators": _evaluators,
    "datasets": _datasets,
    "models": _models,
}


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows as text; values are data, never markup."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*(rows[0] if rows else ()), box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(*("-" if value is None or value != value else Text(str(value)) for value in row.values()))
    width = None if sys.stdout.isatty() else 240  # a pipe has no width, and 80 columns would cut a leaderboard
    Console(width=width).print(table)
