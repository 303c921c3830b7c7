import numpy as np
import pytest

from alignarena.evaluators.exact.measures import measures, summary
from alignarena.evaluators.exact.optimum import expectation, kl, normalised, objective, tilted
from alignarena.evaluators.exact.targets import best_of_n, rejection_sampling

BETA = 0.5
TARGET = {"exact_objective_bias", "exact_learning_error", "exact_target_kl"}


def a_world(seed=0, prompts=4, leaves=60):
    random = np.random.default_rng(seed)
    return normalised(2 * random.normal(size=(prompts, leaves))), random.normal(size=(prompts, leaves))


def test_by_hand():
    log_reference, gold = np.log([[0.5, 0.25, 0.25]]), np.array([[0.0, np.log(2), np.log(4)]])
    found = measures(log_reference, log_reference, gold, 1.0)
    reward = 0.25 * np.log(2) + 0.25 * np.log(4)
    assert {name: values.tolist() for name, values in found.items()} == {
        "gold": pytest.approx([reward]),
        "kl": [0.0],
        "exact_objective": pytest.approx([reward]),
        "exact_objective_reference": pytest.approx([reward]),
        "exact_objective_optimum": pytest.approx([np.log(2)]),  # beta log Z, Z = 0.5 + 0.5 + 1
        "exact_reference_reward": pytest.approx([reward]),
        "exact_frontier_reward": pytest.approx([reward]),
        "exact_kl_from_optimum": pytest.approx([0.25 * np.log(0.5) + 0.5 * np.log(2)]),
    }


def test_each_measure_is_one_a_prompt():
    log_reference, gold = a_world()
    found = measures(tilted(log_reference, gold, 1.0), log_reference, gold, BETA, best_of_n(log_reference, gold, 4))
    assert {values.shape for values in found.values()} == {(4,)}
    assert set(found) > TARGET


def test_the_optimum_scores_one():
    log_reference, gold = a_world()
    best = tilted(log_reference, gold, BETA)
    found = summary(measures(best, log_reference, gold, BETA, best))
    assert (found["j_efficiency"], found["frontier_efficiency"]) == pytest.approx((1, 1), abs=1e-6)
    for name in ("exact_kl_from_optimum", "exact_objective_bias", "exact_learning_error"):
        assert found[name] == pytest.approx(0, abs=1e-12)


def test_only_j_sees_a_wrong_strength():
    log_reference, gold = a_world()
    twice = summary(measures(tilted(log_reference, gold, 2 * BETA), log_reference, gold, BETA))
    assert twice["frontier_efficiency"] == pytest.approx(1, abs=1e-6)
    assert 0.4 < twice["j_efficiency"] < 0.9


def test_j_efficiency_is_the_share_of_beta_times_the_kl_made_good():
    log_reference, gold = a_world()
    policy = normalised(log_reference + gold + np.random.default_rng(1).normal(size=gold.shape))
    best = tilted(log_reference, gold, BETA)
    wanted = 1 - kl(policy, best).mean() / kl(log_reference, best).mean()
    assert summary(measures(policy, log_reference, gold, BETA))["j_efficiency"] == pytest.approx(wanted)


def test_the_reference_model_scores_zero_and_is_on_no_frontier():
    log_reference, gold = a_world()
    found = summary(measures(log_reference, log_reference, gold, BETA))
    assert found["j_efficiency"] == pytest.approx(0, abs=1e-12)
    assert np.isnan(found["frontier_efficiency"])


def test_a_policy_can_be_worse_than_the_reference_model():
    log_reference, gold = a_world()
    found = summary(measures(tilted(log_reference, -gold, BETA), log_reference, gold, BETA))
    assert found["j_efficiency"] < -1 and found["frontier_efficiency"] < -0.5


def test_a_correct_method_has_its_objective_to_blame():
    log_reference, gold = a_world()
    target = best_of_n(log_reference, gold, 4)
    found = measures(target, log_reference, gold, BETA, target)
    assert found["exact_learning_error"] == pytest.approx(np.zeros(4))
    assert found["exact_objective_bias"] == pytest.approx(kl(tilted(log_reference, gold, BETA), target))
    assert found["exact_target_kl"] == pytest.approx(found["kl"])


def test_a_target_with_holes_is_infinitely_far_from_the_optimum():
    log_reference, gold = a_world()
    finished = np.arange(60) < 50
    found = measures(log_reference, log_reference, gold, BETA, rejection_sampling(log_reference, gold, 4, 1, finished))
    assert np.isinf(found["exact_objective_bias"]).all()
    assert np.isfinite(found["exact_learning_error"]).all()


def test_summary_is_of_means_not_of_ratios():
    log_reference, gold = a_world(prompts=2)
    gold[1] *= 10
    policy = tilted(log_reference, gold, 1.0)
    found = measures(policy, log_reference, gold, BETA)
    start, best = expectation(log_reference, gold), tilted(log_reference, gold, BETA)
    gained = objective(policy, log_reference, gold, BETA).mean() - start.mean()
    possible = objective(best, log_reference, gold, BETA).mean() - start.mean()
    assert summary(found)["j_efficiency"] == pytest.approx(gained / possible)
