"""Labels from what a labeler answers. Numbers are worked out by hand."""

import math

import numpy as np
import pytest

from alignarena.core.errors import BadInput
from alignarena.evaluators.verdicts import (
    beats,
    check_pairs,
    expected_score,
    preference,
    renormalised,
    swap_averaged,
)


def test_t14_swap_averaging_leaves_no_place_to_prefer() -> None:
    first, swapped = np.array([0.9, 0.3, 0.7]), np.array([0.6, 0.8, 0.7])
    forth, back = swap_averaged(first, swapped), swap_averaged(swapped, first)
    assert forth == pytest.approx([0.65, 0.25, 0.5])
    assert forth + back == pytest.approx([1, 1, 1])  # p(a, b) + p(b, a)
    for always_first in (0.51, 0.99, 1.0):
        assert swap_averaged(np.array([always_first]), np.array([always_first])) == [0.5]


def test_t16_uniform_digits_score_nothing() -> None:
    assert expected_score(np.full(10, 0.1)) == pytest.approx(0)
    certain = np.eye(10)
    # of the grades 1 to 10 it is (s - 1) / 4.5 - 1
    assert expected_score(certain) == pytest.approx([(grade - 1) / 4.5 - 1 for grade in range(1, 11)])
    assert expected_score(np.array([[0.3, 0.7], [1.0, 0.0]])) == pytest.approx([0.4, -1])


def test_verdicts_are_weighed_against_each_other_alone() -> None:
    assert renormalised(np.log([[0.02, 0.06], [1e-8, 1e-8]])) == pytest.approx(np.array([[0.25, 0.75], [0.5, 0.5]]))
    assert renormalised(np.array([-5000.0, -5000.0 + math.log(3)])) == pytest.approx([0.25, 0.75])


def test_grades_compare_by_which_is_likelier_higher() -> None:
    # the first is higher at 1 over 0 and at 2 over 0 or 1; the second at 1 or 2 over 0 and at 2 over 1
    first, second = np.array([0.1, 0.4, 0.5]), np.array([0.4, 0.4, 0.2])
    wins = 0.4 * 0.4 + 0.5 * 0.8
    losses = 0.1 * 0.6 + 0.4 * 0.2
    assert beats(first, second) == pytest.approx(wins / (wins + losses))
    assert beats(second, first) == pytest.approx(losses / (wins + losses))
    odds = math.log(0.8 / 0.2) - math.log(0.6 / 0.4)  # of two verdicts: the sigmoid of the difference of log-odds
    assert beats(np.array([0.2, 0.8]), np.array([0.4, 0.6])) == pytest.approx(1 / (1 + math.exp(-odds)))
    assert beats(np.array([0.0, 1.0]), np.array([0.0, 1.0])) == 0.5


def test_a_preference_is_a_ranking_with_its_probability() -> None:
    assert preference(0.75) == {"ranks": [1, 2], "margins": [0.5], "probability": 0.75}
    assert preference(0.25) == {"ranks": [2, 1], "margins": [0.5], "probability": 0.25}
    assert preference(0.5) == {"ranks": [1, 1], "margins": [0.0], "probability": 0.5}


def test_a_labeler_compares_two() -> None:
    check_pairs([["a", "b"]])
    with pytest.raises(BadInput, match="two completions at a time, not 3"):
        check_pairs([["a", "b"], ["a", "b", "c"]])
