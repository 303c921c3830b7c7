from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from alignarena.results.convergence import FEWEST_POINTS, last_rise, reward_curve, rise_of


def test_a_rise_by_hand() -> None:
    # Of 12 points the last 6 are fitted: -1 1 -1 1 -1 1 around .2 a step. The line through the zigzag has a slope of
    # (-2.5 (-1) - 1.5 (1) - .5 (-1) + .5 (1) + 1.5 (-1) + 2.5 (1)) / 17.5 = 3 / 17.5 more.
    curve = [-2.0] * 6 + [0.2 * i + (-1) ** (i + 1) for i in range(6)]
    found = rise_of(curve)
    slope = 0.2 + 3 / 17.5
    assert (found.points, found.fitted) == (12, 6)
    assert found.rise == pytest.approx(5 * slope)
    assert found.share == pytest.approx(5 * slope / (2.5 + 2.5 * slope))
    # residuals: 6 - 9 / 17.5 in squares, 4 degrees of freedom, and neighbours of opposite sign widen nothing
    error = math.sqrt((6 - 9 / 17.5) / 4 / 17.5)
    t = slope / error
    assert found.p_value == pytest.approx(0.5 - t * (6 + t * t) / (2 * (4 + t * t) ** 1.5))  # Student, 4 degrees


def test_a_line_rises_and_a_flat_or_falling_one_does_not() -> None:
    assert rise_of(range(30)).goes_on
    assert not rise_of([1.0] * 30).goes_on
    assert rise_of([1.0] * 30).share == 0.0
    falling = rise_of([float(-i) for i in range(30)])
    assert (falling.goes_on, falling.share, falling.p_value) == (False, 0.0, 1.0)


def test_what_is_left_of_a_rise_that_is_over_is_too_little_to_matter() -> None:
    found = rise_of([1 - math.exp(-i / 6) for i in range(60)])
    assert found.p_value < 0.01 and found.share < 0.1 and not found.goes_on


def flagged(make: Callable[[], Any], n: int = 1500) -> float:
    return float(np.mean([rise_of(make()).goes_on for _ in range(n)]))


@pytest.mark.parametrize("points", [10, 15, 60, 180])
def test_noise_alone_is_flagged_once_in_a_hundred(points: int) -> None:
    rng = np.random.default_rng(points)
    risen = 1 - np.exp(-10 * np.arange(points) / points)
    assert flagged(lambda: rng.normal(size=points)) <= 0.018
    assert flagged(lambda: risen + 0.1 * rng.normal(size=points)) <= 0.018
    # where each point is half of the one before, as a policy drifts: more often, but seldom
    weights = 0.5 ** np.arange(30)
    assert flagged(lambda: np.convolve(rng.normal(size=points + 29), weights, "valid")) <= 0.07


@pytest.mark.parametrize(
    ("points", "noise", "least"), [(10, 0.05, 0.8), (15, 0.05, 0.95), (60, 0.1, 0.85), (180, 0.2, 0.8)]
)
def test_a_rise_without_end_is_found(points: int, noise: float, least: float) -> None:
    rng = np.random.default_rng(points)
    assert flagged(lambda: np.arange(points) / points + noise * rng.normal(size=points), 400) >= least


def lines(fit: int, name: str, scores: list[float | None], each: int = 2) -> list[dict[str, Any]]:
    """Every score stands on each step of its phase."""
    return [{"fit": fit, "phase": i, name: score} for i, score in enumerate(scores) for _ in range(each)]


def test_the_curve_is_that_of_the_last_fit_a_point_a_phase() -> None:
    reward_model = [{"fit": 0, "phase": 0, "loss": 0.7}]
    ppo = lines(1, "objective/scores", [0.1, 0.1, 0.3])
    noted = [{"loss_name": "noted", "objective/scores": 9.0}]
    assert reward_curve([*reward_model, *ppo, *noted]) == [0.1, 0.1, 0.3]  # two phases may score the same
    assert reward_curve([*ppo, {"fit": 2, "phase": 0, "loss": 1.0}]) == []  # imitation came after
    assert reward_curve(lines(0, "reward", [0.5, None, 0.7])) == [0.5, 0.7]
    # another library's trainer, in which all is one phase
    assert reward_curve([{"fit": 0, "phase": 0, "reward": score} for score in (0.1, 0.1, 0.4)]) == [0.1, 0.4]
    assert reward_curve([]) == []


def test_a_curve_that_is_absent_or_short_says_nothing() -> None:
    rising = [float(i) for i in range(FEWEST_POINTS)]
    assert last_rise(lines(0, "objective/scores", rising[1:])) is None  # type: ignore[arg-type]
    assert last_rise([{"fit": 0, "phase": 0, "loss": 1.0}] * 50) is None
    found = last_rise(lines(0, "objective/scores", rising))  # type: ignore[arg-type]
    assert found is not None and found.goes_on
