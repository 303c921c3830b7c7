"""The length-controlled win rate of AlpacaEval 2 (Dubois et al., 2024; arXiv:2404.04475), its whole fit bootstrapped.

``logit P(win) = w + v tanh((baseline length - length) / std) + u difficulty`` is fitted to soft wins by maximum
likelihood and read at equal lengths. Without difficulties this is their minimal form. Ours has no penalty and no
annotations of a deliberately long or short baseline; their standard error takes w and v as known, ours does not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from alignarena.results.resampling import Floats, draws, units_of
from alignarena.results.stats import UNKNOWN, Interval, crossed_interval, percentile_interval

FEWEST_PROMPTS_LENGTH_CONTROLLED = 300
RESAMPLES = 2000
_STEEPEST = 8.0  # wins that method or lengths separate have no finite fit; odds of e^8 are that in all but name
_STEPS = 30
_CELLS = 1_000_000  # of one chunk of resamples x rows


@dataclass(frozen=True)
class Games:
    """What one seed's completions won against the baseline's.

    Attributes:
        wins: The probability of winning, or 1, .5 or 0, a row (N,).
        lengths: Characters of the completions (N,).
        baseline_lengths: Characters of the baseline's completions (N,).
        clusters: The prompt cluster of each row (N,); needed for an interval.
        difficulty: A constant of each row's instruction from a joint fit over many models (N,), where there is one.
    """

    wins: ArrayLike
    lengths: ArrayLike
    baseline_lengths: ArrayLike
    clusters: ArrayLike = ()
    difficulty: ArrayLike | None = None

    @property
    def gap(self) -> Floats:
        """Characters that the baseline's completion is longer by (N,)."""
        return np.asarray(np.asarray(self.baseline_lengths, dtype=float) - np.asarray(self.lengths, dtype=float))

    @property
    def constant(self) -> Floats:
        """The features that do not depend on length (N, 1 or 2)."""
        ones = np.ones(len(self.gap))
        columns = [ones] if self.difficulty is None else [ones, np.asarray(self.difficulty, dtype=float)]
        return np.asarray(np.stack(columns, axis=1))


def length_controlled_win_rate(
    wins: ArrayLike, lengths: ArrayLike, baseline_lengths: ArrayLike, difficulty: ArrayLike | None = None
) -> float | None:
    """Win rate had both sides been equally long.

    Args:
        wins: As in :class:`Games`, and the others too.
        lengths: Characters of the completions (N,).
        baseline_lengths: Characters of the baseline's completions (N,).
        difficulty: A constant a row (N,), for the full form.

    Returns:
        The rate in [0, 1], or ``None`` where it is not estimable: under 300 rows, no spread in length, no finite fit.
    """
    games = Games(wins, lengths, baseline_lengths, difficulty=difficulty)
    return rate_of(games) if len(games.gap) >= FEWEST_PROMPTS_LENGTH_CONTROLLED else None


def length_controlled_interval(seeds: Sequence[Games], n: int = RESAMPLES, seed: int = 0) -> Interval:
    """The mean over seeds of the length-controlled win rate, every fit repeated on n resamples of the clusters.

    One seed: the percentile interval. Several: :func:`alignarena.results.stats.crossed_interval` of the seeds' fits.
    The caller sees to it that there are prompts enough.

    Args:
        seeds: One a seed.
        n: Resamples.
        seed: Of the resampling.

    Returns:
        NaN throughout where a seed's rate is not estimable.
    """
    rates = [rate_of(games) for games in seeds]
    known = [rate for rate in rates if rate is not None]
    if not rates or len(known) < len(rates):
        return UNKNOWN
    codes, units = units_of([games.clusters for games in seeds])
    if units < 2:
        return Interval(float(np.mean(known)), math.nan, math.nan, math.nan)
    drawn = draws(units, n, seed)
    replicates = np.stack([_replicates(*one, drawn) for one in zip(seeds, codes, strict=True)], axis=1)
    if len(known) == 1:
        return percentile_interval(known[0], replicates[:, 0], units)
    return crossed_interval(np.array(known), replicates, units)


def rate_of(games: Games) -> float | None:
    """Return the rate of one seed however few its rows; ``None`` without spread in length or a finite fit."""
    if len(games.gap) == 0 or games.gap.std() == 0:
        return None
    weights = fit(games, np.ones((1, len(games.gap))))
    if not np.all(np.abs(weights) < _STEEPEST):
        return None
    return float(_read(games, weights, np.ones((1, len(games.gap))))[0])


def fit(games: Games, counts: Floats, start: Floats | None = None) -> Floats:
    """Fit the regression to each resample at once, by Newton's method.

    Args:
        games: N rows.
        counts: How often each row was drawn (B, N).
        start: Weights near the fits (2 or 3,), such as those of all rows; nearer ones take fewer steps.

    Returns:
        The weights (B, 2 or 3) of length, method and, where there is one, difficulty; at most about 8 in size, which
        is where a fit that is not finite ends.
    """
    target, features = np.asarray(games.wins, dtype=float), _features(games, counts)
    weights = np.zeros(features.shape[-1]) if start is None else start
    weights = np.broadcast_to(weights, (len(counts), features.shape[-1]))
    for _ in range(_STEPS):
        won = expit((features @ weights[..., None])[..., 0])
        gradient = (features * (counts * (target - won))[..., None]).sum(axis=1)
        curvature = (features * (counts * won * (1 - won))[..., None]).transpose(0, 2, 1) @ features
        curvature += 1e-9 * counts.sum(axis=1)[:, None, None] * np.eye(features.shape[-1])
        stepped = np.clip(weights + np.linalg.solve(curvature, gradient[..., None])[..., 0], -_STEEPEST, _STEEPEST)
        moved, weights = np.abs(stepped - weights).max(), stepped
        if moved < 1e-8:
            break
    return weights


def _features(games: Games, counts: Floats) -> Floats:
    """The features (B, N, 2 or 3); the standard deviation of the gap is part of the fit and resampled with it."""
    total = counts.sum(axis=1)
    mean = counts @ games.gap / total
    spread = np.sqrt(np.maximum(counts @ games.gap**2 / total - mean**2, 1e-12))
    length = np.tanh(games.gap / spread[:, None])[..., None]
    return np.concatenate([length, np.broadcast_to(games.constant, (len(counts), *games.constant.shape))], axis=2)


def _read(games: Games, weights: Floats, counts: Floats) -> Floats:
    """The mean probability (B,) of winning with the term of the length left out."""
    chances = expit(weights[:, 1:] @ games.constant.T)
    return np.asarray((chances * counts).sum(axis=1) / counts.sum(axis=1))


def _replicates(games: Games, codes: NDArray[np.int64], drawn: NDArray[np.int16]) -> Floats:
    chunk = max(1, _CELLS // len(codes))
    whole = fit(games, np.ones((1, len(codes))))[0]
    parts = []
    for start in range(0, len(drawn), chunk):
        counts = drawn[start : start + chunk, codes].astype(float)
        counts[counts.sum(axis=1) == 0] = 1.0  # a seed with few of the clusters may miss a draw
        parts.append(_read(games, fit(games, counts, whole), counts))
    return np.concatenate(parts)
