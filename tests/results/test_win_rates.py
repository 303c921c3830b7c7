from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from alignarena.results.win_rates import both_orders, verdicts, win_rate

CLUSTERS = ["a", "b", "c", "d", "e"]


def test_counts_and_rates_by_hand() -> None:
    found = win_rate([([1.0, 0.8, 0.5, 0.1, math.nan], CLUSTERS)])
    assert (found.wins, found.ties, found.losses, found.missing) == (2, 1, 1, 1)
    assert found.soft.mean == pytest.approx(2.4 / 4)
    assert found.hard.mean == pytest.approx(2.5 / 4)
    assert found.net == pytest.approx((2 - 1) / 4)
    # Sums .5, .3, 0, -.4 about one half: of the 8 sign patterns of the three that differ, 6 reach .4 in size.
    assert found.p_value == 6 / 8
    assert found.sign_test_p == pytest.approx(scipy_stats.binomtest(2, 3).pvalue)


def test_the_two_sides_add_up_to_one_with_ties() -> None:
    values = np.random.default_rng(0).choice([0.0, 0.25, 0.5, 1.0], 60)
    one, other = (win_rate([(side, np.arange(60) // 2)]) for side in (values, 1 - values))
    for kind in ("soft", "hard"):
        mine, theirs = getattr(one, kind), getattr(other, kind)
        assert mine.mean + theirs.mean == pytest.approx(1)
        assert mine.low + theirs.high == pytest.approx(1, abs=0.01)
    assert one.p_value == other.p_value


def test_ties_everywhere_say_nothing() -> None:
    found = win_rate([([0.5] * 4, CLUSTERS[:4])])
    assert (found.soft.mean, found.p_value, found.sign_test_p, found.net) == (0.5, 1.0, 1.0, 0.0)


def test_several_seeds_have_no_test_of_one_checkpoint() -> None:
    found = win_rate([([1.0, 0.0], ["a", "b"]), ([1.0, 1.0], ["a", "b"])])
    assert found.soft.mean == 0.75
    assert math.isnan(found.p_value)


def test_no_judgments_give_no_rate() -> None:
    assert math.isnan(win_rate([]).soft.mean)


def test_verdicts_round_at_one_half() -> None:
    assert verdicts([0.0, 0.49, 0.5, 0.51, 1.0]).tolist() == [0, 0, 0.5, 1, 1]
    assert math.isnan(verdicts([math.nan])[0])


def test_both_orders_by_hand() -> None:
    # Agreed for a; agreed for b; always the first; a tie in one order; no answer in one.
    soft, hard = both_orders([0.9, 0.2, 0.9, 0.5, 0.9], [0.3, 0.6, 0.9, 0.1, math.nan])
    assert soft[:4] == pytest.approx([0.8, 0.3, 0.5, 0.7])
    assert hard[:4].tolist() == [1.0, 0.0, 0.5, 0.5]
    assert math.isnan(soft[4])
    assert math.isnan(hard[4])


def test_both_orders_do_not_know_which_side_is_named_first() -> None:
    first, swapped = np.random.default_rng(1).random((2, 50))
    one, other = both_orders(first, swapped), both_orders(swapped, first)
    assert one[0] + other[0] == pytest.approx(np.ones(50))
    assert one[1] + other[1] == pytest.approx(np.ones(50))
