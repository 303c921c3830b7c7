"""Newton's step from a diagonal and some columns, against the dense system."""

import numpy as np
import pytest

from alignarena.evaluators.exact.newton import newton_step
from alignarena.evaluators.exact.optimum import normalised


def test_the_step_solves_the_dense_system_within_the_bound():
    random = np.random.default_rng(0)
    leaves, rank = 40, 3
    few = random.normal(size=(leaves, rank))
    mixed = few @ few.T  # of low rank, so that its columns say all of it
    diagonal = np.exp(3 * random.normal(size=leaves)) + np.diag(mixed) + 1
    policy, slope = np.exp(normalised(random.normal(size=leaves))), random.normal(size=leaves)
    pivots = np.arange(5, 25)

    step = newton_step(slope, diagonal, mixed[:, pivots], pivots, policy)

    dense = np.block([[np.diag(diagonal) - mixed, policy[:, None]], [policy[None], np.zeros((1, 1))]])
    wanted = np.linalg.solve(dense, np.append(-slope, 0.0))[:leaves]
    assert step == pytest.approx(wanted, rel=1e-6, abs=1e-8)
    assert policy @ step == pytest.approx(0, abs=1e-12)


def test_without_mixed_derivatives_the_step_is_the_diagonals():
    slope, diagonal, policy = np.array([1.0, -2.0]), np.array([2.0, 4.0]), np.array([0.5, 0.5])
    # (slope + multiplier policy) / diagonal, with a multiplier that leaves the mass as it is
    step = newton_step(slope, diagonal, np.zeros((2, 1)), np.array([0]), policy)
    assert step == pytest.approx([-0.5, 0.5])
