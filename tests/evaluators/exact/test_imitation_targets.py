"""What imitation of chosen completions, and of the best share of samples, converges to."""

from itertools import product

import numpy as np
import pytest
from scipy.special import expit

from alignarena.evaluators.exact.optimum import normalised
from alignarena.evaluators.exact.targets import preferred, shares_below


def test_preferred_is_the_winner_of_two_different_draws() -> None:
    random = np.random.default_rng(0)
    data, gold = np.exp(normalised(random.normal(size=(2, 6)))), random.normal(size=(2, 6))
    won = np.zeros_like(data)
    for prompt, first, second in product(range(2), range(6), range(6)):
        if first != second:
            wins = expit(gold[prompt, first] - gold[prompt, second])
            won[prompt, first] += data[prompt, first] * data[prompt, second] * wins
            won[prompt, second] += data[prompt, first] * data[prompt, second] * (1 - wins)
    assert np.exp(preferred(gold, np.log(data))) == pytest.approx(won / won.sum(-1, keepdims=True))


def test_preferred_by_hand() -> None:
    # one pair can be drawn, and the first completion wins it 3 times of 4
    found = preferred(np.array([[np.log(3.0), 0.0]]), np.log([[0.9, 0.1]]))
    assert np.exp(found) == pytest.approx(np.array([[0.75, 0.25]]))


def test_shares_below_count_all_prompts_together() -> None:
    policy = np.log([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]])
    sampled = np.array([[0.0, 1.0, -np.inf], [1.0, 2.0, -np.inf]])  # a mass of 0.5, 0.45 and 0.2 at 0, 1 and 2
    found = shares_below(np.array([-1.0, 0.0, 0.5, 1.0, 2.0, 3.0]), policy, sampled)
    assert found == pytest.approx(np.array([0, 0.5, 0.5, 0.95, 1.15, 1.15]) / 1.15)
