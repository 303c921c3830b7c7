"""Filters of scored rows: which completions are good enough to imitate, and what a filter leaves of the prompts.

A score becomes its quantile, a number in [0, 1] that any increasing map of the scores leaves as it is. A filter keeps
the rows whose quantile is *strictly* above a threshold: with discrete scores a level is kept or dropped as a whole.
"""

from __future__ import annotations

import numpy as np
from datasets import Dataset
from numpy.typing import ArrayLike, NDArray

from alignarena.core.contract import Rows
from alignarena.core.errors import RunFailed
from alignarena.core.rows import taken

Floats = NDArray[np.float64]
Kept = NDArray[np.bool_]


def quantiles(scores: ArrayLike, among: ArrayLike) -> Floats:
    """Return the share of some scores that are at most each score (N,): their empirical distribution function.

    Equal scores share a quantile, the highest of their places, and the best of all is at 1.
    """
    ordered = np.sort(np.asarray(among, dtype=float))
    return np.asarray(np.searchsorted(ordered, np.asarray(scores, dtype=float), side="right") / ordered.size)


def own_quantiles(rows: Rows, among: ArrayLike) -> Floats:
    """Return the quantile of each row (N,) among the rows of its own prompt.

    A prompt of which nothing was sampled has no more than its demonstration, which would be the best of itself: its
    rows have their quantiles among the scores of ``among``.
    """
    scores, sampled = np.asarray(rows["score"][:], dtype=float), _sampled(rows)
    found = quantiles(scores, among)
    for places in _by_prompt(rows):
        if sampled[places].any():
            found[places] = quantiles(scores[places], scores[places])
    return found


def where(rows: Rows, kept: Kept) -> Rows:
    """Return the rows that are kept (N,), in their order."""
    return taken(rows, np.flatnonzero(kept).tolist())


def joined(sampled: Rows, demonstrations: Rows) -> Rows:
    """Return samples and demonstrations as one set of rows; a demonstration has no ``sample`` number, and ends."""
    columns = ("prompt_id", "prompt", "completion", "prompt_ids", "completion_ids", "finish_reason", "sample",
               "score")  # fmt: skip
    shown = [{"finish_reason": "stop", **row, "sample": None} for row in demonstrations.to_list()]
    return Dataset.from_list([{name: row.get(name) for name in columns} for row in [*sampled.to_list(), *shown]])


def coverage(rows: Rows, kept: Kept) -> dict[str, float]:
    """Return the shares that a filter keeps: of rows, of prompts with samples, and of demonstrations where there are.

    One threshold for all prompts drops the hard ones whole, which the share of rows does not show.
    """
    sampled = _sampled(rows)
    prompts = np.array(rows["prompt_id"][:])
    covered = _distinct(prompts[kept & sampled]) / _distinct(prompts[sampled])
    shares = {"kept_rows": kept.mean(), "kept_prompts": covered}
    if not sampled.all():
        shares["kept_demonstrations"] = kept[~sampled].mean()
    return {name: float(share) for name, share in shares.items()}


def informative(rows: Rows) -> float:
    """Return the share of prompts whose samples differ in score: where all are equal, a filter teaches nothing."""
    samples = where(rows, _sampled(rows))
    scores = np.asarray(samples["score"][:], dtype=float)
    return float(np.mean([np.ptp(scores[places]) > 0 for places in _by_prompt(samples)]))


def told_apart(pairs: Rows) -> Rows:
    """Return the pairs whose completions differ: the others state no preference.

    Raises:
        RunFailed: None do.
    """
    differ = [chosen != rejected for chosen, rejected in zip(pairs["chosen"][:], pairs["rejected"][:], strict=True)]
    if not any(differ):
        raise RunFailed(f"nothing to learn from: both completions of each of {len(pairs)} pairs are equal")
    return where(pairs, np.array(differ, dtype=bool))


def _sampled(rows: Rows) -> Kept:
    """Tell samples from demonstrations (N,), which have no number."""
    return np.array([number is not None for number in rows["sample"][:]], dtype=bool)


def _by_prompt(rows: Rows) -> list[NDArray[np.int64]]:
    """Return the places of the rows of each prompt."""
    _, prompt, sizes = np.unique(np.array(rows["prompt_id"][:]), return_inverse=True, return_counts=True)
    return np.split(np.argsort(prompt, kind="stable"), np.cumsum(sizes)[:-1])


def _distinct(values: NDArray[np.str_]) -> int:
    return len(np.unique(values))
