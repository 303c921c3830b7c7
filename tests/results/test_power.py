from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from alignarena.results.power import prompts_for_difference, prompts_needed, seeds_needed


def test_55_against_50_needs_780_prompts_and_twice_that_over_28_pairs() -> None:
    assert prompts_needed(0.55) == 778  # (1.959964 + .841621)^2 x .2475 / .0025 = 777.04
    assert prompts_needed(0.55, comparisons=28) == pytest.approx(1556, abs=2)
    assert prompts_needed(0.45) == prompts_needed(0.55)


def test_ties_lessen_and_topics_raise_what_is_needed() -> None:
    assert prompts_needed(0.55, ties=0.5) == pytest.approx(777.04 * (0.2475 - 0.125) / 0.2475, abs=1)
    assert prompts_needed(0.55, per_cluster=4, correlation=0.2) == pytest.approx(777.04 * 1.6, abs=1)


@pytest.mark.parametrize(("rate", "ties"), [(0.5, 0.0), (1.0, 0.0), (0.9, 0.5)])
def test_an_impossible_question_is_refused(rate: float, ties: float) -> None:
    with pytest.raises(ValueError, match="cannot"):
        prompts_needed(rate, ties=ties)


def test_the_power_is_what_was_asked_for() -> None:
    rng, count = np.random.default_rng(0), prompts_needed(0.6, ties=0.2)
    games = rng.choice([1.0, 0.5, 0.0], p=[0.5, 0.2, 0.3], size=(4000, count))
    z = (games.mean(axis=1) - 0.5) / (games.std(axis=1) / np.sqrt(count))
    assert np.mean(np.abs(z) > scipy_stats.norm.ppf(0.975)) == pytest.approx(0.8, abs=0.03)


def test_a_paired_difference_needs_as_many_as_its_deviation_asks() -> None:
    assert prompts_for_difference(0.1, 1.0) == 785  # 7.8489 x 100


def test_seeds_are_those_of_the_t_test() -> None:
    power = pytest.importorskip("statsmodels.stats.power").TTestPower()
    found = seeds_needed(0.1, 0.1)
    assert power.power(1.0, found, 0.05) >= 0.8 > power.power(1.0, found - 1, 0.05)
    assert seeds_needed(0.1, 0.1, comparisons=8) > found
