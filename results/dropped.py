"""What each method met that says little or nothing, and the rows that were left out, as its stages counted them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from alignarena.core.degenerate import AMONG, ROWS
from alignarena.results.cells import Cell

COLUMNS = ["method", "what", "count", "of", "among"]
_FILTERS, _KEPT_NOTHING = "filters", "filters that kept nothing"
Line = tuple[str, int, int, str]  # what, how many, of how many, of what


def counted(cells: Iterable[Cell]) -> list[Line] | None:
    """Return what the cells of a method met at least once, over all seeds.

    A stage that several methods share counts for each of them, as its cost does; one that a cell asked for twice counts
    once. What rows were dropped for comes first, then what verbs met, then filters.

    Returns:
        ``None`` if these cells did not count: an older version ran them.
    """
    met: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    stages: list[dict[str, Any]] = []
    for cell in cells:
        stages += {stage.get("key"): stage for stage in cell.stages}.values()
        met.update(_filters(cell))
    if stages and not any("met" in stage for stage in stages):
        return None
    for stage in stages:
        met.update(stage.get("met") or {})
        dropped.update(stage.get("dropped") or {})
    lines = [(f"dropped from training: {reason}", count, met[ROWS], ROWS) for reason, count in sorted(dropped.items())]
    among = {**AMONG, _KEPT_NOTHING: _FILTERS}
    return lines + [(what, met[what], met[of], of) for what, of in among.items() if met[what]]


def _filters(cell: Cell) -> Counter[str]:
    """Count the filters that noted what they kept, and those that kept nothing."""
    shares = [line["kept_rows"] for line in cell.metrics if line.get("kept_rows") is not None]
    return Counter({_FILTERS: len(shares), _KEPT_NOTHING: shares.count(0.0)})
