"""The policy that is best for a loss of pairs over all pairs there are, found by search where no formula is known.

Arrays as in ``targets``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import expit

from alignarena.core.errors import RunFailed
from alignarena.evaluators.exact.leaves import Floats, Ints
from alignarena.evaluators.exact.newton import newton_step
from alignarena.evaluators.exact.optimum import normalised

_BLOCK = 8  # rows of an N x N matrix at once: what stays in a cache
_COLUMNS = 64  # of the N x N matrix of mixed second derivatives: twice as many find no better step
_STEPS = 200
_TOLERANCE = 1e-7  # of the gradient
_LEAST_GRADIENT = 1e-5  # rounding may stop a search above the tolerance asked for; this is still a minimum
_LEAST_MASS = 1e-12  # leaves rarer than this in the data are not worth a finer search
_LEAST_SHARE = 1e-6  # of a step
_FARTHEST = 5.0  # nats that a step may move a log-prob
_LARGEST = 350.0  # nats: the exponential of twice as much is still a number


class Term(NamedTuple):
    """Some function of each score, with its first and second derivative by it, (N,) each."""

    value: Floats
    slope: Floats
    curve: Floats


class Contrast(NamedTuple):
    """A loss of pairs, ``weight softplus(lost(rejected) - won(chosen)) + alone(chosen)``, at some scores s (N,).

    The N x N pairs then cost a few products, a quotient and a logarithm each: the exponential of a difference is a
    product of exponentials.
    """

    won: Term
    lost: Term
    alone: Term
    weight: float = 1.0  # of the softplus


PairLoss = Callable[[Floats], Contrast]


def line(score: Floats, slope: float, at_zero: float = 0.0) -> Term:
    """Return the term ``slope s + at_zero``."""
    return Term(slope * score + at_zero, np.full_like(score, slope), np.zeros_like(score))


def population_minimum(
    loss: PairLoss, start: Floats, gold: Floats, log_data: Floats, scale: Floats, offset: Floats
) -> Floats:
    """Return the policy (P, N) that minimises a pairwise loss over all pairs, prompt by prompt.

    The loss of a pair is f(s(chosen), s(rejected)) with s(y) = scale(y) log pi(y) + offset(y), so the mean over
    labels is p f(s(y), s(y')) + (1 - p) f(s(y'), s(y)). Both orders of a pair are drawn alike and p(y', y) is
    1 - p(y, y'), so the mean over pairs is 2 E[p f(s(y), s(y'))]: one evaluation on the N x N matrix.

    Args:
        loss: f, from the scores of all leaves.
        start: Where the search starts (P, N), finite: the nearer, the shorter it is.
        gold: The hidden reward, whose differences label the pairs (P, N).
        log_data: What both completions are drawn from (P, N).
        scale: Of log pi in s (P, N).
        offset: Added to it (P, N).

    Raises:
        RunFailed: The search ends away from a minimum.
    """
    rows = zip(normalised(start), gold, log_data, scale, offset, strict=True)
    return np.stack([_Search(loss, *row).minimum(first) for first, *row in rows])


class _Point(NamedTuple):
    """The mean loss at a policy; its gradient, the diagonal of its Hessian and the mixed derivatives are by s."""

    log_policy: Floats  # (N,)
    value: float
    gradient: Floats  # (N,)
    diagonal: Floats  # (N,), positive
    cross: Floats  # (N, R) columns of the mixed derivatives, whose sign is turned
    pivots: Ints  # (R,) which


class _Search:
    """Newton's method on one prompt's log-probs (N,)."""

    def __init__(self, loss: PairLoss, gold: Floats, log_data: Floats, scale: Floats, offset: Floats) -> None:
        self.loss, self.gold, self.scale, self.offset = loss, gold, scale, offset
        data = np.exp(log_data)
        self.labelled = 2 * data[:, None] * data[None] * expit(gold[:, None] - gold[None])
        self.root = np.sqrt(np.maximum(data, _LEAST_MASS))

    def minimum(self, log_policy: Floats) -> Floats:
        """Return the policy at the minimum, from another.

        A leaf's curvature is in proportion to its mass in the data, over ten orders of magnitude, so its gradient is
        judged by the root of that mass.
        """
        here, left = self._at(log_policy), np.inf
        for _ in range(_STEPS):
            slope, policy = self.scale * here.gradient, np.exp(here.log_policy)
            downhill = policy * slope.sum() - slope  # by logits: log-probs less their own sum
            left = float(np.abs(downhill / self.root).max())
            found = self._lower(here, slope, downhill) if left >= _TOLERANCE else None
            if found is None:
                break
            here = found
        if not left < _LEAST_GRADIENT:
            raise RunFailed(f"no minimum of the population loss: after its last step the gradient is {left:.1e}")
        return here.log_policy

    def _lower(self, here: _Point, slope: Floats, downhill: Floats) -> _Point | None:
        """Return a point below, or nothing if there is none that rounding lets one tell."""
        policy = np.exp(here.log_policy)
        # the normaliser's own curvature counts where it bends upwards
        diagonal = self.scale**2 * here.diagonal + max(-slope.sum(), 0.0) * policy
        step = newton_step(
            slope, diagonal, self.scale[:, None] * here.cross * self.scale[here.pivots], here.pivots, policy
        )
        if step @ downhill <= 0:
            step = downhill / diagonal
        step, share = np.clip(step, -_FARTHEST, _FARTHEST), 1.0
        while share > _LEAST_SHARE:
            there = self._at(normalised(here.log_policy + share * step))
            if there.value <= here.value - 1e-4 * share * (step @ downhill) + 1e-14 * abs(here.value):
                return there
            share /= 2
        return None

    def _pivots(self, score: Floats) -> Ints:
        """Return leaves spread evenly over scores and over gold, by the root of their mass."""
        shares = (np.arange(_COLUMNS // 2) + 0.5) / (_COLUMNS // 2)
        found = []
        for key in (score, self.gold):
            order = np.argsort(key)
            upto = np.cumsum(self.root[order])
            found.append(order[np.searchsorted(upto, shares * upto[-1])])
        return np.unique(np.concatenate(found))

    def _at(self, log_policy: Floats) -> _Point:
        score = self.scale * log_policy + self.offset
        won, lost, alone, weight = self.loss(score)
        pivots, chosen = self._pivots(score), self.labelled.sum(1)
        pairs = _over_pairs(won.value, lost.value, self.labelled, pivots)
        gauss = weight * (pairs.second_won * won.slope**2 + pairs.second_lost * lost.slope**2)
        bent = weight * (pairs.first_lost * lost.curve - pairs.first_won * won.curve) + chosen * alone.curve
        return _Point(
            log_policy,
            value=weight * pairs.total + float(chosen @ alone.value),
            gradient=weight * (pairs.first_lost * lost.slope - pairs.first_won * won.slope) + chosen * alone.slope,
            diagonal=np.where(gauss + bent > 0, gauss + bent, gauss),
            cross=weight * (pairs.as_chosen * won.slope[:, None] * lost.slope[pivots]
                            + pairs.as_rejected * won.slope[pivots] * lost.slope[:, None]),
            pivots=pivots,
        )  # fmt: skip


class _Pairs(NamedTuple):
    """The softplus of x = lost - won over all labelled pairs, and its derivatives by x summed over one side."""

    total: float
    first_won: Floats  # (N,) over what was rejected
    first_lost: Floats  # (N,) over what was chosen
    second_won: Floats
    second_lost: Floats
    as_chosen: Floats  # (N, R) the second derivative with a pivot rejected
    as_rejected: Floats  # (N, R) with a pivot chosen


def _over_pairs(won: Floats, lost: Floats, labelled: Floats, pivots: Ints) -> _Pairs:
    by_won, by_lost = (np.exp(np.clip(one, -_LARGEST, _LARGEST)) for one in (-won, lost))
    total, (first_won, first_lost, second_won, second_lost) = 0.0, np.zeros((4, len(won)))
    as_chosen = np.empty((len(won), len(pivots)))
    for start in range(0, len(won), _BLOCK):
        rows = slice(start, start + _BLOCK)
        odds = by_won[rows, None] * by_lost
        with_one = odds + 1
        odds /= with_one
        first = np.multiply(odds, labelled[rows], out=odds)
        second = first / with_one
        each = np.ones(len(first))
        first_won[rows], second_won[rows] = first.sum(1), second.sum(1)
        first_lost += each @ first
        second_lost += each @ second
        as_chosen[rows] = second[:, pivots]
        total += float(np.vdot(labelled[rows], np.log(with_one, out=with_one)))
    odds = by_won[pivots, None] * by_lost
    as_rejected = (odds / (1 + odds) ** 2 * labelled[pivots]).T
    return _Pairs(total, first_won, first_lost, second_won, second_lost, as_chosen, as_rejected)
