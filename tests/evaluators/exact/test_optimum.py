import numpy as np
import pytest

from alignarena.evaluators.exact.optimum import (
    expectation,
    frontier_curve,
    frontier_reward,
    kl,
    normalised,
    objective,
    tilted,
)

LOG_REFERENCE = np.log([[0.5, 0.25, 0.25]])
GOLD = np.array([[0.0, np.log(2), np.log(4)]])


def a_world(seed=0, prompts=4, leaves=40):
    random = np.random.default_rng(seed)
    return normalised(2 * random.normal(size=(prompts, leaves))), random.normal(size=(prompts, leaves))


def test_tilted_by_hand():
    # 0.5 x 1, 0.25 x 2, 0.25 x 4 at beta 1: 0.5, 0.5, 1 over 2
    assert np.exp(tilted(LOG_REFERENCE, GOLD, 1.0)) == pytest.approx(np.array([[0.25, 0.25, 0.5]]))
    # at beta 1/2 the weights are squared: 0.5, 1, 4 over 5.5
    assert np.exp(tilted(LOG_REFERENCE, GOLD, 0.5)) == pytest.approx(np.array([[1, 2, 8]]) / 11)


def test_kl_and_expectation_by_hand():
    policy = np.log([[0.25, 0.25, 0.5]])
    divergence = 0.25 * np.log(0.5) + 0.5 * np.log(2)  # the middle leaf has not moved
    reward = 0.25 * np.log(2) + 0.5 * np.log(4)
    assert kl(policy, LOG_REFERENCE) == pytest.approx([divergence])
    assert expectation(policy, GOLD) == pytest.approx([reward])
    assert objective(policy, LOG_REFERENCE, GOLD, 0.5) == pytest.approx([reward - 0.5 * divergence])


def test_kl_where_mass_is_missing():
    hole = np.array([[np.log(0.5), np.log(0.5), -np.inf]])
    assert kl(hole, LOG_REFERENCE) == pytest.approx([0.5 * np.log(2)])
    assert kl(LOG_REFERENCE, hole) == [np.inf]
    assert kl(hole, hole) == [0.0]


def test_the_objective_falls_short_by_beta_times_the_kl_to_the_optimum():
    log_reference, gold = a_world()
    for seed, beta in ((1, 0.2), (2, 1.0), (3, 3.0)):
        policy = normalised(3 * np.random.default_rng(seed).normal(size=gold.shape))
        best = tilted(log_reference, gold, beta)
        short = objective(best, log_reference, gold, beta) - objective(policy, log_reference, gold, beta)
        assert short == pytest.approx(beta * kl(policy, best), abs=1e-10)


@pytest.mark.parametrize("beta", [0.05, 0.3, 2.0, 50.0])
def test_a_tilted_policy_is_on_the_frontier(beta):
    log_reference, gold = a_world()
    policy = tilted(log_reference, gold, beta)
    found = frontier_reward(log_reference, gold, kl(policy, log_reference).mean())
    assert found == pytest.approx(expectation(policy, gold), abs=1e-7)


def test_the_frontier_is_above_every_policy_of_its_kl():
    log_reference, gold = a_world()
    for seed in range(20):
        random = np.random.default_rng(seed)
        policy = normalised(log_reference + gold / random.uniform(0.2, 4) + random.normal(size=gold.shape))
        best = frontier_reward(log_reference, gold, kl(policy, log_reference).mean())
        assert best.mean() > expectation(policy, gold).mean()


def test_the_ends_of_the_frontier():
    log_reference, gold = a_world()
    assert frontier_reward(log_reference, gold, 0.0) == pytest.approx(expectation(log_reference, gold))
    assert frontier_reward(log_reference, gold, 1e3) == pytest.approx(gold.max(-1))
    flat = np.zeros_like(gold)
    assert frontier_reward(log_reference, flat, 0.7) == pytest.approx(flat[:, 0])


def test_ties_at_the_top_are_shared_as_the_reference_model_does():
    curve = frontier_curve(np.log([[0.5, 0.2, 0.3]]), np.array([[0.0, 1.0, 1.0]]), points=5)
    assert (curve[0][-1], curve[1][-1]) == pytest.approx((np.log(2), 1.0))  # not the KL to one of the two


def test_the_curve_rises_and_bends_down():
    log_reference, gold = a_world()
    divergence, reward = frontier_curve(log_reference, gold)
    assert divergence.shape == reward.shape == (61,)
    assert (divergence[0], reward[0]) == (0.0, expectation(log_reference, gold).mean())
    assert (np.diff(divergence) > 0).all() and (np.diff(reward) >= 0).all()
    assert (np.diff(np.diff(reward) / np.diff(divergence)) < 1e-9).all()
    middle = frontier_reward(log_reference, gold, divergence[30])
    assert middle.mean() == pytest.approx(reward[30])
