"""Bradley-Terry and Davidson strengths of many tables of wins at once, by Newton's method.

Both likelihoods are concave in log-strengths. The fits of thousands of resamples run side by side; `choix`, which fits
one table at a time, is what the tests check them against.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from alignarena.results.resampling import Floats

PRIOR = 0.1  # virtual wins and as many losses against the anchor, where a table alone has no finite fit
_STEPS = 100
_LONGEST = 2.0  # of one step in log-strength: far from the fit Newton's method overshoots
_FARTHEST_TIES = 12.0  # log of the tie parameter: no ties at all have no finite one


def strongly_connected(wins: Floats) -> NDArray[np.bool_]:
    """Return which tables (...) of wins (..., K, K) have a chain of wins from everyone to everyone (Ford, 1957).

    Only those have finite Bradley-Terry strengths.
    """
    reach = (wins > 0) | np.eye(wins.shape[-1], dtype=bool)
    for _ in range(math.ceil(math.log2(max(2, wins.shape[-1])))):
        reach = (reach.astype(np.float32) @ reach.astype(np.float32)) > 0
    return np.asarray(reach.all(axis=(-1, -2)))


def with_prior(wins: Floats, anchor: int, connected: NDArray[np.bool_]) -> Floats:
    """Add virtual games against the anchor to the tables (..., K, K) that are not connected (...)."""
    games = np.zeros(wins.shape[-2:])
    games[anchor], games[:, anchor], games[anchor, anchor] = PRIOR, PRIOR, 0.0
    return wins + np.where(connected[..., None, None], 0.0, games)


def bradley_terry(wins: Floats) -> Floats:
    """Return log-strengths (..., K) of mean 0: P(i beats j) = p_i / (p_i + p_j) (Bradley and Terry, 1952).

    Args:
        wins: How often i beat j (..., K, K), ties as half a win of each; strongly connected.
    """
    games, strengths = wins + np.swapaxes(wins, -1, -2), np.zeros(wins.shape[:-1])
    for _ in range(_STEPS):
        chances = expit(strengths[..., :, None] - strengths[..., None, :])
        gradient = (wins - games * chances).sum(axis=-1)
        step = _solve(_laplacian(games * chances * (1 - chances)), gradient)
        strengths = strengths + step
        if np.abs(step).max() < 1e-9:
            break
    return np.asarray(strengths - strengths.mean(axis=-1, keepdims=True))


def davidson(wins: Floats, ties: Floats) -> tuple[Floats, Floats]:
    """Fit P(i) : P(j) : P(tie) = p_i : p_j : v sqrt(p_i p_j) (Davidson, 1970).

    Args:
        wins: How often i beat j (..., K, K), ties not counted; strongly connected.
        ties: How often they tied (..., K, K), symmetric.

    Returns:
        Log-strengths (..., K) of mean 0, and log v (...), -12 where there are no ties.
    """
    games = wins + np.swapaxes(wins, -1, -2) + ties
    strengths, evenness = np.zeros(wins.shape[:-1]), np.zeros(wins.shape[:-2])
    for _ in range(_STEPS):
        won, tied = _outcomes(strengths, evenness)
        gradient = (wins + ties / 2 - games * (won + tied / 2)).sum(axis=-1)
        of_ties = ((ties - games * tied) / 2).sum(axis=(-1, -2))
        shared = (games * (tied / 2 - (won + tied / 2) * tied)).sum(axis=-1)
        spread = (games * tied * (1 - tied) / 2).sum(axis=(-1, -2)) + 1e-12
        curvature = np.empty((*spread.shape, shared.shape[-1] + 1, shared.shape[-1] + 1))
        curvature[..., :-1, :-1] = _laplacian(games * (won + tied / 4 - (won + tied / 2) ** 2))
        curvature[..., :-1, -1] = curvature[..., -1, :-1] = shared
        curvature[..., -1, -1] = spread
        step = _solve(curvature, np.concatenate([gradient, of_ties[..., None]], axis=-1))
        moved = np.clip(evenness + step[..., -1], -_FARTHEST_TIES, _FARTHEST_TIES)
        largest = max(np.abs(step[..., :-1]).max(), np.abs(moved - evenness).max())
        strengths, evenness = strengths + step[..., :-1], moved
        if largest < 1e-9:
            break
    return strengths - strengths.mean(axis=-1, keepdims=True), evenness


def _outcomes(strengths: Floats, evenness: Floats) -> tuple[Floats, Floats]:
    """Chances that i beats j and that they tie, (..., K, K) each."""
    gap = strengths[..., :, None] - strengths[..., None, :]
    tied = np.broadcast_to(evenness[..., None, None], gap.shape)
    most = np.maximum(np.abs(gap) / 2, tied)
    weights = np.exp(gap / 2 - most), np.exp(-gap / 2 - most), np.exp(tied - most)
    total = weights[0] + weights[1] + weights[2]
    return weights[0] / total, weights[2] / total


def _laplacian(weights: Floats) -> Floats:
    """Curvature (..., K, K) in log-strengths; the ones fix their mean, which the likelihood leaves open."""
    count = weights.shape[-1]
    off = weights * (1 - np.eye(count))
    return np.asarray(off.sum(axis=-1)[..., None] * np.eye(count) - off + 1 / count)


def _solve(curvature: Floats, gradient: Floats) -> Floats:
    step = np.linalg.solve(curvature, gradient[..., None])[..., 0]
    return np.asarray(np.clip(step, -_LONGEST, _LONGEST))
