"""Resampling of prompt clusters: the same draws for every method, seed and statistic, so that comparisons are paired.

More than 2,000 clusters are merged at random into 2,000 groups: a group is a fair draw of whole clusters, so intervals
stay valid, and a million judgments need no more memory than a few thousand.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

RESAMPLES = 10_000
MOST_UNITS = 2000
_CHUNK = 1000


def units_of(clusters: Sequence[ArrayLike]) -> tuple[list[Codes], int]:
    """Number what is resampled.

    Args:
        clusters: The cluster of each row, one array a seed; a name means the same cluster in every seed.

    Returns:
        The unit of each row, from 0, one array a seed; and how many units there are.
    """
    arrays = [np.asarray(one) for one in clusters]
    codes, names = pd.factorize(np.concatenate(arrays), sort=True)
    units = len(names)
    if units > MOST_UNITS:
        order = np.random.default_rng(units).permutation(units) % MOST_UNITS
        codes, units = order[codes], MOST_UNITS
    return np.split(codes, np.cumsum([len(one) for one in arrays])[:-1]), units


def resampled(totals: Floats, n: int = RESAMPLES, seed: int = 0) -> Floats:
    """Return the sums over units (n, ...) of totals (units, ...), units drawn with replacement n times."""
    counts, flat = draws(len(totals), n, seed), totals.reshape(len(totals), -1)
    chunks = [counts[i : i + _CHUNK].astype(float) @ flat for i in range(0, n, _CHUNK)]
    return np.concatenate(chunks).reshape(n, *totals.shape[1:])


@functools.lru_cache(maxsize=4)
def draws(units: int, n: int = RESAMPLES, seed: int = 0) -> NDArray[np.int16]:
    """Return how often each unit is drawn, (n, units): the same draws for all methods, so they are kept."""
    rng = np.random.default_rng([seed, units])
    drawn = np.empty((n, units), dtype=np.int16)
    for i in range(n):
        drawn[i] = np.bincount(rng.integers(0, units, units), minlength=units)
    return drawn


@functools.lru_cache(maxsize=4)
def signs(units: int, n: int = RESAMPLES, seed: int = 0) -> NDArray[np.int8]:
    """Return random signs (n, units), kept as the draws are."""
    rng = np.random.default_rng([seed, units, 1])
    chunks = [rng.choice(np.array([1, -1], dtype=np.int8), size=(min(_CHUNK, n - start), units))
              for start in range(0, n, _CHUNK)]  # fmt: skip
    return np.concatenate(chunks)
