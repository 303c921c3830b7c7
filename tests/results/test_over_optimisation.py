from __future__ import annotations

import math

import numpy as np
import pytest

from alignarena.results.over_optimisation import fit


def test_best_of_n_form_is_found_again_with_its_peak() -> None:
    roots = np.linspace(0, 4, 20)
    found = fit(roots**2, roots * (1.0 - 0.2 * roots), "best_of_n")
    assert found is not None
    assert (found.alpha, found.beta, found.explained) == pytest.approx((1.0, 0.2, 1.0))
    assert found.peak == pytest.approx(2.5**2)
    assert found.reward(found.peak) == pytest.approx(1.25)


def test_rl_form_is_found_again_with_its_peak() -> None:
    roots = np.linspace(0.6, 8, 20)
    found = fit(roots**2, roots * (1.0 - 0.5 * np.log(roots)), "rl")
    assert found is not None
    assert (found.alpha, found.beta) == pytest.approx((1.0, 0.5))
    assert found.peak == pytest.approx(math.exp(1.0) ** 2)
    assert found.reward([0.0, 1.0]).tolist() == pytest.approx([0.0, 1.0])


def test_the_form_of_rl_is_not_fitted_near_its_infinite_slope() -> None:
    roots = np.array([0.1, 0.2, 0.6, 1.0, 2.0, 4.0])
    rewards = np.where(roots < 0.5, 99.0, roots * (1.0 - 0.5 * np.log(roots)))
    found = fit(roots**2, rewards, "rl")
    assert found is not None
    assert (found.points, found.alpha) == (4, pytest.approx(1.0))


def test_a_reward_that_never_falls_has_no_peak() -> None:
    roots = np.linspace(0, 4, 9)
    found = fit(roots**2, roots * (1.0 + 0.1 * roots), "best_of_n")
    assert found is not None
    assert found.peak == math.inf


def test_too_few_points_have_no_fit() -> None:
    assert fit([0.0, 1.0], [0.0, 1.0], "best_of_n") is None
    assert fit([1.0, 1.0, 1.0], [1.0, 1.0, 1.0], "best_of_n") is None
