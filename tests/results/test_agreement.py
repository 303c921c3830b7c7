"""Kappas against numbers worked out by hand and against the libraries, and NaN where they are undefined."""

import math

import numpy as np
import pytest

from alignarena.results import agreement
from alignarena.results.agreement import People


def test_cohen_by_hand() -> None:
    # po = 3/4; pe = (2/4)(3/4) + (2/4)(1/4) = 1/2
    assert agreement.cohen_kappa([1, 1, 2, 2], [1, 1, 2, 1]) == pytest.approx((0.75 - 0.5) / 0.5)
    assert agreement.cohen_kappa([1, 2], [1, 2]) == 1.0


def test_undefined_is_nan_not_one() -> None:
    assert math.isnan(agreement.cohen_kappa([1, 1], [1, 1]))
    assert math.isnan(agreement.cohen_kappa([], []))
    assert math.isnan(agreement.fleiss_kappa([(1, 1), (1, 1)]))
    assert math.isnan(agreement.fleiss_kappa([(1,), (2,)]))
    assert math.isnan(agreement.fleiss_kappa([(1, 2), (1, 2, 2)]))
    assert math.isnan(agreement.swap_consistency([])) and math.isnan(agreement.position_bias([]))


def test_fleiss_by_hand() -> None:
    # three raters, P_i = 1 and 1/3, shares 5/6 and 1/6: Pe = 26/36
    assert agreement.fleiss_kappa([(1, 1, 1), (1, 1, 2)]) == pytest.approx((2 / 3 - 26 / 36) / (1 - 26 / 36))


def test_fleiss_as_statsmodels_has_it() -> None:
    inter_rater = pytest.importorskip("statsmodels.stats.inter_rater")
    ratings = np.random.default_rng(0).choice(3, size=(50, 3), p=(0.2, 0.5, 0.3))
    theirs = inter_rater.fleiss_kappa(inter_rater.aggregate_raters(ratings)[0])
    assert agreement.fleiss_kappa(ratings.tolist()) == pytest.approx(theirs)


def test_a_majority_is_more_than_half() -> None:
    assert [People(one).majority for one in ((1, 1, 2), (0, 1, 2), (0, 0, 1), (1, 2), (2,))] == [1, None, 0, None, 2]
    assert People((1, 1, 2)).strength == "2 of 3"


def test_ties_of_the_judge_are_half() -> None:
    found = agreement.agreement([0.9, 0.5, 0.1, 0.9, math.nan, 0.2], [1, 1, 1, 0, 1, None])
    assert found.tolist() == [1.0, 0.5, 0.0]


def test_orders() -> None:
    orders = [(0.9, 0.2), (0.9, 0.8), (0.3, 0.2), (0.5, 0.5)]  # consistent, first place, second place, tie
    assert agreement.swap_consistency(orders) == 0.5
    assert agreement.position_bias([*orders, (0.9, 0.9)]) == pytest.approx(2 / 5 - 1 / 5)


def test_longer_share_counts_ties_half_and_no_equal_lengths() -> None:
    assert agreement.longer_share([1, 2, 0, 1, None], [(5, 1), (5, 1), (5, 1), (3, 3), (9, 1)]) == 0.5
