"""How a judge agrees with people and with itself. Sides are 1 (the first is better), 2, or 0 for a tie.

Agreement is never read against 100 %: people disagree too, so the page shows theirs, and that of judges which read
nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

SIDES = (0, 1, 2)


@dataclass(frozen=True)
class People:
    """What people said of one pair."""

    labels: tuple[int, ...]

    @property
    def majority(self) -> int | None:
        """The side that more than half of them took; None if none did."""
        ((side, votes),) = Counter(self.labels).most_common(1)
        return side if 2 * votes > len(self.labels) else None

    @property
    def strength(self) -> str:
        """How many of them took it, such as ``2 of 3``."""
        return f"{max(Counter(self.labels).values())} of {len(self.labels)}"


def side_of(probability: float) -> int:
    """Return the side that a probability of the first takes."""
    return 0 if probability == 0.5 else 1 if probability > 0.5 else 2


def agreement(probabilities: ArrayLike, majorities: Sequence[int | None]) -> NDArray[np.float64]:
    """Return 1, .5 (the judge ties) or 0 for each pair on which people took a side and the judge answered (n,)."""
    known = zip(np.asarray(probabilities, dtype=float), majorities, strict=True)
    return np.array([_agrees(side_of(p), side) for p, side in known if side in (1, 2) and math.isfinite(p)])


def _agrees(side: int, other: int | None) -> float:
    return 0.5 if side == 0 else float(side == other)


def cohen_kappa(first: Sequence[int], second: Sequence[int]) -> float:
    """Cohen's kappa ``(po - pe) / (1 - pe)`` of two raters (Cohen, 1960); NaN where pe is 1, or nothing was rated."""
    if not first or len({*first, *second}) < 2:
        return math.nan  # scikit-learn says so too, with a warning
    from sklearn.metrics import cohen_kappa_score

    return float(cohen_kappa_score(list(first), list(second), labels=list(SIDES)))


def fleiss_kappa(ratings: Sequence[Sequence[int]]) -> float:
    """Fleiss' kappa of n raters an item (Fleiss, 1971): ``(mean P_i - P_e) / (1 - P_e)``.

    ``P_i = (sum_j n_ij^2 - n) / (n (n - 1))`` is the share of pairs of raters who agree on i, and ``P_e = sum_j p_j^2``
    what chance would give.

    Returns:
        NaN where it is undefined: fewer than two raters, not equally many, or all of one class.
    """
    raters = {len(one) for one in ratings}
    if len(raters) != 1 or min(raters) < 2 or len({side for one in ratings for side in one}) < 2:
        return math.nan
    (n,) = raters
    counts = np.array([[list(one).count(side) for side in SIDES] for one in ratings])
    agree = ((counts**2).sum(axis=1) - n) / (n * (n - 1))
    chance = float(((counts.sum(axis=0) / counts.sum()) ** 2).sum())
    return (float(agree.mean()) - chance) / (1 - chance)


def swap_consistency(orders: Sequence[tuple[float, float]]) -> float:
    """Return the share of pairs that get the same winner, or a tie, in both orders; NaN of none.

    Args:
        orders: That what stands first is better, in the order given and in the other.
    """
    return _share([side_of(first) == side_of(1 - swapped) for first, swapped in orders])


def position_bias(orders: Sequence[tuple[float, float]]) -> float:
    """Return the share in which the first place wins in both orders, less that in which the second does."""
    both = [(side_of(first), side_of(swapped)) for first, swapped in orders]
    return _share([one == (1, 1) for one in both]) - _share([one == (2, 2) for one in both])


def longer_share(sides: Sequence[int | None], lengths: Sequence[tuple[int, int]]) -> float:
    """Return how often the longer completion is preferred, ties half, where lengths differ and a side is known."""
    known = [(side, a > b) for side, (a, b) in zip(sides, lengths, strict=True) if side is not None and a != b]
    return _mean([_agrees(side, 1 if longer_first else 2) for side, longer_first in known])


def pairwise(ratings: Sequence[Sequence[int]]) -> dict[str, float]:
    """Return the share of items on which each two raters say the same, as ``{"1 and 2": .91}``."""
    if len({len(one) for one in ratings}) != 1:
        return {}
    both = combinations(range(len(ratings[0])), 2)
    return {f"{i + 1} and {j + 1}": _share([one[i] == one[j] for one in ratings]) for i, j in both}


def _share(hits: Sequence[bool]) -> float:
    return _mean([float(hit) for hit in hits])


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
