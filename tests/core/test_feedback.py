"""Llama 2's combination of two scorers, and the scales of reward models; numbers worked out by hand."""

import math
from dataclasses import dataclass

import pytest
from datasets import Dataset

from alignarena.core.feedback import UNSAFE_BELOW, Piecewise, Standardised, centred, standardised


@dataclass(frozen=True)
class Reads:
    """Gives a column as the score."""

    column: str

    @property
    def lineage(self):
        return frozenset({self.column})

    def score(self, rows, lab):
        return rows[self.column][:]


BOTH = Piecewise(Reads("helpful"), Reads("harmless"))


def scored(helpful, harmless, **prompt):
    return BOTH.score(Dataset.from_list([{"helpful": helpful, "harmless": harmless, **prompt}]), None)[0]


def sigmoid(score):
    return 1 / (1 + math.exp(-score))


def test_t17_at_the_threshold_itself_helpfulness_counts():
    assert pytest.approx(0.15, abs=1e-15) == sigmoid(UNSAFE_BELOW)
    assert pytest.approx(-1.7346, abs=1e-4) == UNSAFE_BELOW
    assert scored(3.0, UNSAFE_BELOW) == 3.0
    assert scored(3.0, math.nextafter(UNSAFE_BELOW, -math.inf)) == math.nextafter(UNSAFE_BELOW, -math.inf)
    assert scored(3.0, math.nextafter(UNSAFE_BELOW, 0.0)) == 3.0


@pytest.mark.parametrize("score", [-20.0, -2.0, 0.0, 0.3, 5.0])
def test_t17_the_logit_of_the_sigmoid_is_the_raw_score(score):
    # so that using the raw score is the paper's logit of the combined sigmoids
    probability = sigmoid(score)
    assert math.log(probability / (1 - probability)) == pytest.approx(score, abs=1e-9)
    assert scored(score, 0.0) == score


def test_a_score_that_would_saturate_stays_finite():
    assert sigmoid(800.0) == 1.0  # its logit is infinite
    assert scored(800.0, 0.0) == 800.0
    assert scored(0.0, -800.0) == -800.0


@pytest.mark.parametrize("prompt", [{"axis": "harmless"}, {"kind": "red_team"}, {"axis": "other", "kind": "red_team"}])
def test_a_prompt_that_asks_for_harm_is_scored_by_harmlessness_alone(prompt):
    assert scored(3.0, 1.0, **prompt) == 1.0
    assert scored(3.0, -5.0, **prompt) == -5.0


@pytest.mark.parametrize("prompt", [{}, {"axis": "helpful", "kind": "ordinary"}, {"axis": "overall", "kind": None}])
def test_any_other_prompt_is_scored_by_helpfulness_while_safe(prompt):
    assert scored(3.0, -1.0, **prompt) == 3.0
    assert scored(3.0, -2.0, **prompt) == -2.0


def test_a_combination_is_made_of_both():
    assert BOTH.lineage == {"helpful", "harmless"}


def test_a_centred_score_keeps_its_unit_and_a_standardised_one_does_not():
    # mean 3, deviation 2
    rows = Dataset.from_list([{"raw": 7.0}, {"raw": 1.0}])
    assert centred(Reads("raw"), [1.0, 5.0]).score(rows, None) == [4.0, -2.0]
    assert standardised(Reads("raw"), [1.0, 5.0]).score(rows, None) == [2.0, -1.0]


def test_equal_scores_are_shifted_but_not_scaled():
    assert standardised(Reads("raw"), [0.1] * 7) == Standardised(Reads("raw"), pytest.approx(0.1), 1.0)
