"""Reward-model quality by hand, and against scikit-learn and scipy."""

import math

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import brier_score_loss, log_loss

from alignarena.results.reward_quality import accuracy, by_bin, calibration, error_correlation, right, temperature


def test_accuracy_counts_a_tie_as_half() -> None:
    assert right([2.0, 0.0, -1.0, 3.0]).tolist() == [1.0, 0.5, 0.0, 1.0]
    assert accuracy([2.0, 0.0, -1.0, 3.0]) == pytest.approx(2.5 / 4)
    assert math.isnan(accuracy([]))


def test_log_loss_and_brier_are_scikit_learns() -> None:
    margins = np.random.default_rng(0).normal(1.0, 2.0, size=200)
    found = calibration(margins)
    chances = expit(margins)
    assert found.log_loss == pytest.approx(log_loss(np.ones(200), chances, labels=[0, 1]), abs=1e-12)
    assert found.brier == pytest.approx(brier_score_loss(np.ones(200), chances), abs=1e-12)


def test_a_model_that_knows_nothing() -> None:
    found = calibration(np.zeros(50))
    assert found.log_loss == pytest.approx(math.log(2))
    assert found.brier == pytest.approx(0.25)
    assert found.ece == 0.0  # it says even, and half a tie is right


def test_the_calibration_error_by_hand() -> None:
    margins = [math.log(3), math.log(3), math.log(3), -math.log(3)]  # confidence .75 each, 3 of 4 right
    assert calibration(margins, bins=1).ece == pytest.approx(0.0)
    margins = [math.log(3), -math.log(3), math.log(9), math.log(9)]  # .75 and half right; .9 and all right
    assert calibration(margins, bins=2).ece == pytest.approx((0.25 + 0.1) / 2)
    assert all(map(math.isnan, (calibration([]).ece, calibration([]).brier, calibration([]).log_loss)))


def test_the_temperature_undoes_a_scale() -> None:
    generator = np.random.default_rng(1)
    strength = generator.normal(0.0, 1.5, size=20_000)
    margins = np.where(generator.random(20_000) < expit(strength), strength, -strength)
    assert temperature(margins) == pytest.approx(1.0, abs=0.05)
    assert temperature(7.0 * margins) == pytest.approx(7.0, rel=0.05)


def test_bins_have_their_pairs_and_their_accuracy() -> None:
    found = by_bin([1.0, -1.0, 1.0, 0.0], [0.05, 0.1, 0.2, 0.6], (0.1, 0.5))
    assert found == [("below 0.1", 1, 1.0), ("0.1 to 0.5", 2, 0.5), ("0.5 and more", 1, 0.5)]
    assert math.isnan(by_bin([1.0], [0.9], (0.1, 0.5))[0][2])


def test_errors_alike_opposite_and_none() -> None:
    assert error_correlation([1.0, -1.0, 1.0], [2.0, -5.0, 0.1]) == pytest.approx(1.0)
    assert error_correlation([1.0, -1.0], [-1.0, 1.0]) == pytest.approx(-1.0)
    assert error_correlation([1, 1, -1, -1], [1, -1, 1, -1]) == pytest.approx(0.0)
    assert math.isnan(error_correlation([1.0, 2.0], [1.0, -1.0]))  # one never errs
