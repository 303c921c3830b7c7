from collections.abc import Callable

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from alignarena.evaluators.exact import offline_targets
from alignarena.evaluators.exact.offline_targets import kto, orpo, simpo
from alignarena.evaluators.exact.optimum import kl, normalised

LENGTHS = np.array([1, 2, 2, 3, 3, 3])


def a_world(leaves=6, prompts=2):
    random = np.random.default_rng(0)
    reference, data = normalised(1.5 * random.normal(size=(2, prompts, leaves)))
    return reference, random.normal(size=(prompts, leaves)), data


def least(loss: Callable[..., float], leaves: int, starts: int = 4):
    """The best of several searches over free logits."""
    random = np.random.default_rng(1)
    found = [minimize(loss, random.normal(size=leaves), method="BFGS", options={"gtol": 1e-9}) for _ in range(starts)]
    return min(found, key=lambda one: one.fun)


def pair_mean(each, gold, data):
    """Mean of each[chosen, rejected] over pairs from the data and over their labels."""
    wins = expit(gold[:, None] - gold[None])
    return np.exp(data) @ (wins * each + (1 - wins) * each.T) @ np.exp(data)


def kto_loss(logits, reference, gold, data, beta, desirable, undesirable):
    ratio = normalised(logits) - reference
    good = desirable * expit(-beta * ratio)[:, None] + np.zeros(len(gold))
    bad = undesirable * expit(beta * ratio)[None] + np.zeros((len(gold), 1))
    return pair_mean(good + bad, gold, data)


@pytest.mark.parametrize("beta", [0.1, 0.5, 0.95])
@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.3, 1.0)])
def test_kto_is_the_minimum_of_its_population_loss(beta, weights):
    reference, gold, data = a_world()
    found = kto(reference, gold, beta, *weights, data)
    assert np.exp(found).sum(-1) == pytest.approx([1, 1])
    for prompt in range(2):
        world = (reference[prompt], gold[prompt], data[prompt], beta, *weights)
        wanted = least(lambda logits, world=world: kto_loss(logits, *world), 6)
        value = kto_loss(np.maximum(found[prompt], -1e4), *world)
        assert value <= wanted.fun + 1e-9
        if beta >= 0.5:  # below, a search takes for ever: the sigmoids are flat where masses vanish
            assert value == pytest.approx(wanted.fun, abs=1e-5)
            assert np.exp(found[prompt]) == pytest.approx(np.exp(normalised(wanted.x)), abs=0.01)


def test_kto_leaves_no_mass_where_a_completion_mostly_loses():
    reference, gold, data = a_world(leaves=40)
    found = kto(reference, gold, 0.3, 1.0, 1.0, data)
    wins = [expit(values[:, None] - values[None]) @ np.exp(row) for values, row in zip(gold, data, strict=True)]
    assert (np.isneginf(found) == (np.stack(wins) <= 0.5)).all()


def test_kto_by_hand():
    # two leaves alike and one that loses: what is left is shared as they were
    reference, gold = np.log([[0.2, 0.2, 0.6]]), np.array([[1.0, 1.0, -1.0]])
    assert np.exp(kto(reference, gold, 0.5, 1.0, 1.0, reference)) == pytest.approx(np.array([[0.5, 0.5, 0.0]]))


@pytest.mark.parametrize(("beta", "desirable"), [(1.0, 1.0), (0.3, 0.01)])
def test_kto_without_such_a_minimum(beta, desirable):
    reference, gold, data = a_world()
    with pytest.raises(ValueError, match="no target"):
        kto(reference, gold, beta, desirable, 1.0, data)


def simpo_loss(logits, gold, data, beta, gamma):
    score = beta * normalised(logits) / LENGTHS
    return pair_mean(np.logaddexp(0, gamma - score[:, None] + score[None]), gold, data)


@pytest.mark.parametrize("gamma", [0.0, 1.5])
def test_simpo_is_the_minimum_of_its_population_loss(gamma):
    _, gold, data = a_world()
    found = simpo(gold, 2.0, gamma, data, LENGTHS)
    for prompt in range(2):
        world = (gold[prompt], data[prompt], 2.0, gamma)
        wanted = least(lambda logits, world=world: simpo_loss(logits, *world), 6)
        assert simpo_loss(found[prompt], *world) <= wanted.fun + 1e-11
        assert kl(normalised(wanted.x), found[prompt]) < 1e-6


def test_simpo_without_a_margin_scores_as_gold_does():
    _, gold, data = a_world(leaves=150)
    lengths = np.random.default_rng(2).integers(1, 5, size=150)
    score = 2.0 * simpo(gold, 2.0, 0.0, data, lengths) / lengths
    assert score - gold == pytest.approx(np.broadcast_to((score - gold).mean(-1, keepdims=True), gold.shape), abs=1e-3)


def orpo_loss(logits, gold, data, odds_coef):
    mean = np.minimum(normalised(logits) / LENGTHS, -1e-12)
    odds = mean - np.log(-np.expm1(mean))
    each = odds_coef * np.logaddexp(0, odds[None] - odds[:, None]) - mean[:, None]
    return pair_mean(each, gold, data)


@pytest.mark.parametrize("odds_coef", [0.1, 1.0])
def test_orpo_is_the_minimum_of_its_population_loss(odds_coef):
    _, gold, data = a_world()
    found = orpo(gold, odds_coef, data, LENGTHS)
    for prompt in range(2):
        world = (gold[prompt], data[prompt], odds_coef)
        wanted = least(lambda logits, world=world: orpo_loss(logits, *world), 6)
        assert orpo_loss(found[prompt], *world) <= wanted.fun + 1e-11
        assert kl(normalised(wanted.x), found[prompt]) < 1e-6


def test_orpo_without_its_odds_is_the_likelihood_of_the_chosen():
    _, gold, data = a_world()
    wins = [expit(values[:, None] - values[None]) @ np.exp(row) for values, row in zip(gold, data, strict=True)]
    expected = normalised(data + np.log(np.stack(wins) / LENGTHS))
    assert orpo(gold, 0.0, data, LENGTHS) == pytest.approx(expected, abs=1e-4)


def test_orpos_log_odds_have_the_stated_derivatives(monkeypatch):
    _, gold, data = a_world(leaves=6)
    losses = []
    monkeypatch.setattr(offline_targets, "population_minimum", lambda loss, *_: losses.append(loss))
    orpo(gold, 1.0, data, LENGTHS)
    score = np.array([-3.0, -0.7, -0.1])
    above, here, below = (losses[0](score + step).won for step in (1e-5, 0.0, -1e-5))
    assert here.value == pytest.approx(score - np.log(1 - np.exp(score)))
    assert here.slope == pytest.approx((above.value - below.value) / 2e-5, rel=1e-6)
    assert here.curve == pytest.approx((above.slope - below.slope) / 2e-5, rel=1e-6)
