"""Means of one cell's scores: claims about a checkpoint, whose unit is the cluster of prompts."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd

from alignarena.results.cells import Cell, tidy
from alignarena.results.stats import Interval, mean_interval


def known_scores(suite: str, cell: Cell) -> pd.DataFrame:
    """Return the tidy scores of a cell that have a value."""
    scores = tidy(suite, [cell])
    return scores[scores["value"].notna()]


def cell_means(suite: str, cell: Cell) -> Iterator[tuple[str, Interval]]:
    """Yield each scored metric of a cell with its mean and interval, by name; not those without a finite mean."""
    for metric, rows in known_scores(suite, cell).groupby("metric", sort=True):
        found = mean_interval([(rows["value"].to_numpy(), rows["cluster"].to_numpy())])
        if math.isfinite(found.mean):
            yield str(metric), found
