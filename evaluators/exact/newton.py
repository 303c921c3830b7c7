"""A step of Newton's method on a policy whose Hessian is a diagonal less a smooth matrix: one of low rank.

What two leaves do to each other depends smoothly on their few numbers (gold, score), so some tens of columns say what
the N x N matrix says. A step costs these, not a factorisation of N x N: at 1,555 leaves a few milliseconds.
"""

from __future__ import annotations

import numpy as np

from alignarena.evaluators.exact.leaves import Floats, Ints

_LEAST_VALUE = 1e-11  # of the greatest: what is smaller of a small system is rounding


def newton_step(slope: Floats, diagonal: Floats, cross: Floats, pivots: Ints, policy: Floats) -> Floats:
    """Return the change of log-probs (N,) that minimises a loss's quadratic model, with no change of the total mass.

    The model's Hessian is diag(diagonal) - C with C = cross C[pivots, pivots]^-1 cross^T (Nystroem), its bound is
    sum_y pi(y) change(y) = 0. Adding policy policy^T to it changes nothing within the bound and keeps it regular.

    Args:
        slope: The loss's gradient by log-probs (N,).
        diagonal: Of the Hessian (N,), positive.
        cross: Columns of C (N, R).
        pivots: Which (R,).
        policy: The probabilities (N,).
    """
    columns = np.concatenate([cross, policy[:, None]], 1)
    scaled = columns / diagonal[:, None]
    small = columns.T @ scaled  # Woodbury's small system
    small[:-1, :-1] -= (cross[pivots] + cross[pivots].T) / 2
    small[-1, -1] += 1
    unit = 1 / np.sqrt(np.maximum(np.abs(np.diag(small)), np.finfo(float).tiny))
    values, vectors = np.linalg.eigh(unit[:, None] * small * unit)
    kept = np.abs(values) > _LEAST_VALUE * np.abs(values).max()
    basis = unit[:, None] * vectors[:, kept]

    def solved(right: Floats) -> Floats:
        return np.asarray(right / diagonal - scaled @ (basis @ ((basis.T @ (scaled.T @ right)) / values[kept])))

    free, held = solved(-slope), solved(policy)
    return np.asarray(free - held * (policy @ free) / (policy @ held))
