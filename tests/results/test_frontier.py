from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate

from alignarena.results.frontier import envelope, envelope_interval, shared_kl_max


def test_points_that_others_beat_are_left_out() -> None:
    found = envelope([0.0, 1.0, 2.0, 4.0, 1.0], [0.0, 0.5, 0.4, 0.8, 0.3])
    assert (found.kl.tolist(), found.reward.tolist()) == ([0.0, 1.0, 4.0], [0.0, 0.5, 0.8])


def test_the_reward_is_linear_in_the_root_of_the_kl_and_unknown_beyond() -> None:
    found = envelope([0.0, 4.0], [0.0, 1.0])
    assert found.reward_at(1.0) == pytest.approx(0.5)
    assert found.reward_at(4.0) == 1.0
    assert math.isnan(found.reward_at(4.1))
    assert math.isnan(envelope([1.0, 4.0], [0.0, 1.0]).reward_at(0.5))
    assert math.isnan(envelope([], []).reward_at(1.0))


def test_who_goes_too_far_keeps_what_was_reached_on_the_way() -> None:
    found = envelope([0.0, 1.0, 9.0], [0.0, 1.0, 0.2])
    assert found.reward_at(5.0) == 1.0


def test_the_area_is_the_integral() -> None:
    found = envelope([0.0, 1.0, 4.0, 9.0], [0.1, 0.5, 0.6, 0.3])
    for limit in (0.5, 4.0, 7.0):
        expected = integrate.quad(found.reward_at, 0, limit, points=[1.0, 4.0] if limit > 4 else None)[0]
        assert found.area(limit) == pytest.approx(expected, abs=1e-6)
    assert math.isnan(found.area(10.0))
    assert math.isnan(envelope([1.0, 4.0], [0.0, 1.0]).area(2.0))
    # linear in the root from 0 to 1 at KL 4: the integral of sqrt(k) / 2 is 8/3
    assert envelope([0.0, 4.0], [0.0, 1.0]).area(4.0) == pytest.approx(8 / 3)


def test_missing_and_negative_kls() -> None:
    found = envelope([-0.1, math.nan, 1.0], [0.0, 5.0, 1.0])
    assert (found.kl.tolist(), found.reward.tolist()) == ([0.0, 1.0], [0.0, 1.0])


def test_rivals_are_compared_where_all_have_been() -> None:
    assert shared_kl_max([envelope([0.0, 4.0], [0, 1]), envelope([0.0, 9.0], [0, 1])]) == 4.0
    assert math.isnan(shared_kl_max([]))


def test_the_interval_of_a_reward_at_a_kl_is_that_of_its_points() -> None:
    rng = np.random.default_rng(0)
    kl = np.tile([[0.0], [1.0], [4.0]], (1, 400))
    reward = np.array([[0.0], [0.5], [1.0]]) + rng.normal(0, 0.5, (3, 400))
    found = envelope_interval(kl, reward, np.arange(400), lambda one: one.reward_at(1.0), n=1000)
    assert found.mean == pytest.approx(reward[1].mean())
    assert found.standard_error == pytest.approx(0.5 / 20, rel=0.15)
    beyond = envelope_interval(kl, reward, np.arange(400), lambda one: one.reward_at(5.0), n=100)
    assert math.isnan(beyond.mean)
    one_cluster = envelope_interval(kl, reward, np.zeros(400), lambda one: one.area(4.0), n=100)
    assert not one_cluster.known
