"""Llama 2's own target against sums over all draws, and against the fixed point that it states."""

from itertools import product

import numpy as np
import pytest

from alignarena.evaluators.exact.llama2_target import best_of_versions, piecewise, whitened
from alignarena.evaluators.exact.optimum import kl, tilted
from alignarena.evaluators.exact.targets import rejection_sampling

REFERENCE = np.array([[0.1, 0.3, 0.15, 0.25, 0.2], [0.4, 0.05, 0.25, 0.1, 0.2]])
SCORE = np.array([[1.0, 0.5, 0.8, 0.4, -2.0], [0.0, 3.0, 0.1, 2.0, 4.0]])
FINISHED = np.array([True, True, False, True, True])
ALL = np.ones(5, dtype=bool)


def by_all_draws(policies, score, n, finished):
    """The distribution of the best finished of n draws from each policy, by summing over everything drawn together."""
    won = np.zeros(len(score))
    for draws in product(range(len(score)), repeat=n * len(policies)):
        left = [draw for draw in draws if finished[draw]]
        if left:
            probability = np.prod([policies[place // n][draw] for place, draw in enumerate(draws)])
            won[max(left, key=lambda draw: score[draw])] += probability
    return won / won.sum()


@pytest.mark.parametrize("finished", [ALL, FINISHED])
def test_every_version_is_the_best_of_all_draws_so_far(finished):
    for row, score in zip(REFERENCE, SCORE, strict=True):
        policies = [row]
        for versions in (1, 2, 3):
            policies.append(by_all_draws(policies, score, 2, finished))
            found = np.exp(best_of_versions(np.log(row)[None], score[None], 2, versions, finished))[0]
            assert found == pytest.approx(policies[-1], abs=1e-12)


def test_one_version_is_one_round_of_rejection_sampling():
    one = np.exp(best_of_versions(np.log(REFERENCE), SCORE, 4, 1, FINISHED))
    assert one == pytest.approx(np.exp(rejection_sampling(np.log(REFERENCE), SCORE, 4, 1, FINISHED)), abs=1e-12)


def test_of_two_leaves_by_hand():
    # V1: the better of 2 draws is the good leaf unless both are not: 3/4. V2: unless 2 of SFT and 2 of V1 are not:
    # 1 - (1/2)^2 (1/4)^2 = 63/64
    found = best_of_versions(np.log([[0.5, 0.5]]), np.array([[0.0, 1.0]]), 2, 2, np.array([True, True]))
    assert np.exp(found) == pytest.approx(np.array([[1 / 64, 63 / 64]]))


def test_nothing_turns_to_nan_where_masses_vanish():
    score = np.linspace(-1, 1, 400)[None]
    found = best_of_versions(np.full((1, 400), -np.log(400)), score, 16, 6, np.ones(400, dtype=bool))
    assert np.exp(found).sum() == pytest.approx(1) and not np.isnan(found).any()


def test_harmlessness_counts_below_its_threshold_alone():
    # sigmoid(-1.7) = .154, sigmoid(-1.8) = .142
    assert piecewise(np.array([2.0, 2.0]), np.array([-1.7, -1.8])).tolist() == [2.0, -1.8]


def test_whitening_is_the_fixed_point_of_its_own_deviation():
    strength, penalty = 0.7, np.array([0.0, 0.0, 0.4, 0.0, 0.0])
    policy = whitened(np.log(REFERENCE), SCORE, penalty, strength, 2)
    mass = np.exp(policy) / 2
    spread = np.sqrt((mass * SCORE**2).sum() - (mass * SCORE).sum() ** 2)
    wanted = REFERENCE * np.exp((SCORE / spread - penalty) / strength)
    assert np.exp(policy) == pytest.approx(wanted / wanted.sum(1, keepdims=True), abs=1e-7)


def test_whitening_leaves_no_scale_and_a_smaller_strength_leads_further():
    plain, scaled = (whitened(np.log(REFERENCE), one, np.zeros(5), 1.0, 2) for one in (SCORE, 7 * SCORE + 3))
    assert np.exp(scaled) == pytest.approx(np.exp(plain), abs=1e-6)
    near, far = (whitened(np.log(REFERENCE), SCORE, np.zeros(5), strength, 2) for strength in (2.0, 0.5))
    assert (kl(far, np.log(REFERENCE)) > kl(near, np.log(REFERENCE))).all()


def test_prompts_that_are_not_sampled_do_not_set_the_scale():
    both = whitened(np.log(REFERENCE), SCORE, np.zeros(5), 1.0, 1)
    first = whitened(np.log(REFERENCE[:1]), SCORE[:1], np.zeros(5), 1.0, 1)
    assert np.exp(both[:1]) == pytest.approx(np.exp(first), abs=1e-12)
    mass = np.exp(first)
    spread = np.sqrt((mass * SCORE[:1] ** 2).sum() - (mass * SCORE[:1]).sum() ** 2)
    assert np.exp(both) == pytest.approx(np.exp(tilted(np.log(REFERENCE), SCORE, spread)), abs=1e-7)
