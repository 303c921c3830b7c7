"""What a scorer is said to prefer and to choose, by hand."""

import numpy as np

from alignarena.benchmarks.reward_checks import _best, _preferred


def test_originals_that_score_above_what_was_made_of_them() -> None:
    originals, twice, empty = [1.0, 2.0, 3.0], [0.0, 1.0, 5.0], [1.0, 0.0, 0.0]
    assert _preferred(np.array([originals, twice, empty])) == [0.6667, 0.8333]  # a tie is half
    assert _preferred(np.empty((2, 0))) == [None]


def test_gold_of_the_best_by_a_scorer() -> None:
    scores, gold = np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([[0.2, 0.8], [0.4, 0.6]])
    assert _best(scores, gold) == [0.5, 0.6]  # one: the mean; of two: .8 and .4
