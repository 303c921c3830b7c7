from itertools import product

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.sparse import csr_array
from scipy.special import expit

from alignarena.evaluators.exact import population, targets
from alignarena.evaluators.exact.offline_targets import orpo, simpo
from alignarena.evaluators.exact.optimum import kl, normalised, tilted
from alignarena.evaluators.exact.population import Contrast, Term, line, population_minimum
from alignarena.evaluators.exact.targets import (
    best_of_n,
    cpl,
    cpl_biased,
    hir_posterior,
    ipo,
    rejection_sampling,
    rest_filter,
    revision,
)

REFERENCE = np.array([[0.1, 0.3, 0.15, 0.25, 0.2], [0.4, 0.05, 0.25, 0.1, 0.2]])
SCORE = np.array([[1.0, 0.5, 1.0, 0.5, -2.0], [0.0, 3.0, 0.0, 3.0, 3.0]])  # with ties
FINISHED = np.array([True, True, False, True, False])
ALL = np.ones(5, dtype=bool)


def by_all_draws(policy, score, n, finished):
    """The distribution of the best finished of n draws, by summing over every n-tuple; ties between draws at random."""
    won = np.zeros_like(policy)
    for draws in product(range(len(policy)), repeat=n):
        left = [draw for draw in draws if finished[draw]]
        best = [draw for draw in left if score[draw] == max(score[each] for each in left)]
        for draw in best:
            won[draw] += np.prod(policy[list(draws)]) / len(best)
    return won / won.sum()


def a_world(seed=0, prompts=2, leaves=12):
    random = np.random.default_rng(seed)
    reference, data = normalised(1.5 * random.normal(size=(2, prompts, leaves)))
    return reference, random.normal(size=(prompts, leaves)), data


def test_best_of_n_is_the_sum_over_all_draws():
    found = np.exp(best_of_n(np.log(REFERENCE), SCORE, 3))
    wanted = [by_all_draws(row, score, 3, ALL) for row, score in zip(REFERENCE, SCORE, strict=True)]
    assert found == pytest.approx(np.stack(wanted), abs=1e-12)
    assert found.sum(-1) == pytest.approx([1, 1], abs=1e-14)


def test_best_of_n_by_hand():
    # scores 0 < 1 < 2: F = 0.5, 0.75, 1; squares 0.25, 0.5625, 1
    found = best_of_n(np.log([[0.5, 0.25, 0.25]]), np.array([[0.0, 1.0, 2.0]]), 2)
    assert np.exp(found) == pytest.approx(np.array([[0.25, 0.3125, 0.4375]]))


def test_best_of_n_by_drawing():
    random, n = np.random.default_rng(0), 4
    draws = random.choice(5, p=REFERENCE[0], size=(200_000, n))
    scores = SCORE[0][draws] + 1e-3 * random.random(draws.shape)  # ties broken between draws
    best = draws[np.arange(len(draws)), scores.argmax(1)]
    share = np.bincount(best, minlength=5) / len(best)
    assert share == pytest.approx(np.exp(best_of_n(np.log(REFERENCE), SCORE, n))[0], abs=5e-3)


def test_best_of_n_reads_the_order_of_scores_alone():
    reference, gold, _ = a_world()
    plain = best_of_n(reference, gold, 6)
    assert best_of_n(reference, np.exp(3 * gold) - 7, 6) == pytest.approx(plain, abs=1e-12)
    assert best_of_n(reference, gold, 1) == pytest.approx(reference, abs=1e-12)


def test_best_of_many_without_ties_has_the_known_kl():
    leaves, n = 4000, 16  # all but continuous
    reference = np.full((1, leaves), -np.log(leaves))
    found = kl(best_of_n(reference, np.arange(leaves)[None], n), reference)
    assert found == pytest.approx([np.log(n) - (n - 1) / n], abs=0.005)


@pytest.mark.parametrize("finished", [FINISHED, ALL])
def test_rejection_sampling_is_the_sum_over_all_draws_of_each_round(finished):
    for rounds in (1, 2):
        wanted = REFERENCE
        for _ in range(rounds):
            wanted = np.stack([by_all_draws(p, s, 3, finished) for p, s in zip(wanted, SCORE, strict=True)])
        found = np.exp(rejection_sampling(np.log(REFERENCE), SCORE, 3, rounds, finished))
        assert found == pytest.approx(wanted, abs=1e-12)
        assert (found[:, ~finished] == 0).all()


def test_a_second_round_is_a_larger_n_where_every_draw_finishes():
    reference, gold, _ = a_world()
    assert rejection_sampling(reference, gold, 3, 2, np.ones(12, dtype=bool)) == pytest.approx(
        best_of_n(reference, gold, 9), abs=1e-9
    )


def test_rejection_sampling_does_not_underflow():
    reference, gold, _ = a_world(leaves=12)
    found = rejection_sampling(reference, gold, 16, 3, np.ones(12, dtype=bool))
    assert np.isfinite(found).all() and found.min() < -2000


def test_a_prompt_whose_draws_never_finish_keeps_its_policy():
    reference = np.array([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5]])
    with np.errstate(divide="ignore"):
        found = rejection_sampling(np.log(reference), np.zeros((2, 3)), 4, 1, np.array([False, False, True]))
    assert np.exp(found) == pytest.approx(np.array([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]))


def ipo_loss(logits, reference, gold, data, beta):
    ratio = normalised(logits) - reference
    gap = ratio[:, None] - ratio[None]
    wins = expit(gold[:, None] - gold[None])
    loss = wins * (gap - 1 / (2 * beta)) ** 2 + (1 - wins) * (-gap - 1 / (2 * beta)) ** 2
    return np.exp(data) @ loss @ np.exp(data)


def test_ipo_is_the_minimum_of_its_population_loss():
    reference, gold, data = a_world()
    found = ipo(reference, gold, 0.3, data)
    for prompt in range(2):
        world = (reference[prompt], gold[prompt], data[prompt], 0.3)
        steps = 1e-5 * np.eye(12)
        slope = [ipo_loss(found[prompt] + h, *world) - ipo_loss(found[prompt] - h, *world) for h in steps]
        assert np.array(slope) / 2e-5 == pytest.approx(np.zeros(12), abs=1e-8)
        for step in np.random.default_rng(0).normal(size=(20, 12)):
            assert ipo_loss(found[prompt] + step, *world) > ipo_loss(found[prompt], *world)


def test_ipo_by_hand():
    reference, gold = np.log([[0.5, 0.5]]), np.array([[0.0, np.log(3)]])  # the second wins with 3/4
    wins = np.array([0.5 / 2 + 0.25 / 2, 0.75 / 2 + 0.5 / 2])
    assert ipo(reference, gold, 0.5, reference) == pytest.approx(normalised(wins[None] / 0.5))


def test_cpl_by_hand():
    assert np.exp(cpl(np.array([[0.0, np.log(2), np.log(4)]]), 1.0)) == pytest.approx(np.array([[1, 2, 4]]) / 7)


def test_cpl_without_bias_has_the_closed_forms():
    reference, gold, data = a_world(leaves=150)
    to_reference = cpl_biased(reference, gold, 0.3, 1.0, data, True)
    assert kl(tilted(reference, gold, 0.3), to_reference).max() < 1e-6
    plain = cpl_biased(reference, gold, 0.3, 1.0, data, False)
    assert kl(cpl(gold, 0.3), plain).max() < 1e-6


def cpl_loss(logits, reference, gold, data, alpha, bias):
    value = alpha * (normalised(logits) - reference)
    gap = value[:, None] - bias * value[None]  # chosen first
    wins = expit(gold[:, None] - gold[None])
    loss = wins * np.logaddexp(0, -gap) + (1 - wins) * np.logaddexp(0, -gap.T)
    return np.exp(data) @ loss @ np.exp(data)


@pytest.mark.parametrize("to_reference", [True, False])
@pytest.mark.parametrize("bias", [0.5, 0.9])
def test_biased_cpl_is_the_minimum_of_its_population_loss(bias, to_reference):
    reference, gold, data = a_world(leaves=6)
    found = cpl_biased(reference, gold, 0.4, bias, data, to_reference)
    for prompt in range(2):
        against = reference[prompt] if to_reference else np.zeros(6)
        world = (against, gold[prompt], data[prompt], 0.4, bias)
        wanted = minimize(cpl_loss, np.zeros(6), args=world, method="BFGS", options={"gtol": 1e-9})
        assert cpl_loss(found[prompt], *world) <= wanted.fun + 1e-12
        assert kl(normalised(wanted.x), found[prompt]) < 1e-6


@pytest.mark.parametrize("to_reference", [True, False])
def test_biased_cpl_has_the_stated_form(to_reference):
    reference, gold, data = a_world(prompts=1, leaves=300)
    found = cpl_biased(reference, gold, 0.2, 0.75, data, to_reference)
    value = 0.2 * (found - reference if to_reference else found)[0]
    wins = expit(gold[0][:, None] - gold[0][None])
    wrong = expit(0.75 * value[None] - value[:, None])
    mass = np.exp(data[0]) * ((wins * wrong - 0.75 * (wins * wrong).T) @ np.exp(data[0]))
    assert mass / mass.sum() == pytest.approx(np.exp(found[0]), rel=1e-3, abs=1e-6)


def test_the_kind_of_loss_is_left_to_the_caller():
    reference, gold, data = a_world(leaves=20)

    def cubed(score):  # the cross-entropy of s^3: least where it differs as gold does
        cube = Term(score**3, 3 * score**2, 6 * score)
        return Contrast(cube, cube, line(score, 0))

    found = population_minimum(cubed, reference, gold, data, np.ones_like(gold), np.zeros_like(gold))
    gap = found**3 - gold
    assert gap == pytest.approx(np.broadcast_to(gap.mean(1, keepdims=True), gap.shape), abs=1e-3)


@pytest.mark.parametrize("target", ["cpl", "simpo", "orpo"])
def test_the_second_derivatives_lead_there_in_few_steps(target, monkeypatch):
    reference, gold, data = a_world(prompts=1, leaves=300)
    lengths, calls, pairs = np.random.default_rng(2).integers(2, 6, size=300), [], population._over_pairs
    monkeypatch.setattr(population, "_over_pairs", lambda *of: (calls.append(1), pairs(*of))[1])
    if target == "cpl":
        cpl_biased(reference, gold, 0.2, 0.75, data, True)
    elif target == "simpo":
        simpo(gold, 2.0, 1.0, data, lengths)
    else:
        orpo(gold, 1.0, data, lengths)
    assert len(calls) <= 25


def test_the_likelihood_of_what_is_chosen_alone():
    reference, gold, data = a_world(leaves=20)

    def likelihood(score):
        return Contrast(line(score, 0), line(score, 0), line(score, -1))

    found = population_minimum(likelihood, reference, gold, data, np.ones_like(gold), np.zeros_like(gold))
    wins = [expit(values[:, None] - values[None]) @ np.exp(row) for values, row in zip(gold, data, strict=True)]
    assert kl(normalised(data + np.log(np.stack(wins))), found).max() < 1e-8


def test_rest_keeps_what_clears_the_last_threshold():
    found = rest_filter(np.log(REFERENCE[:1]), SCORE[:1], [0.0, 0.5])
    assert np.exp(found) == pytest.approx(np.array([[0.4, 0, 0.6, 0, 0]]))  # the threshold itself is not cleared


def test_rest_without_a_threshold_imitates():
    assert rest_filter(np.log(REFERENCE), SCORE, [-np.inf]) == pytest.approx(np.log(REFERENCE))


def test_rest_leaves_a_starved_prompt_where_the_step_before_left_it():
    found = rest_filter(np.log(REFERENCE), SCORE, [0.0, 2.0])
    assert np.exp(found) == pytest.approx(np.array([[0.125, 0.375, 0.1875, 0.3125, 0], [0, 1 / 7, 0, 2 / 7, 4 / 7]]))
    assert rest_filter(np.log(REFERENCE), SCORE, [5.0]) == pytest.approx(np.log(REFERENCE))


def test_rest_grows_into_the_same_filter():
    once, twice = (rest_filter(np.log(REFERENCE), SCORE, [0.0, 0.5], steps) for steps in (1, 2))
    assert np.exp(twice) == pytest.approx(np.exp(once))


def test_hir_is_the_posterior_of_the_grade():
    bad, good = (hir_posterior(np.log(REFERENCE), SCORE, [0.6], grade) for grade in (0, 1))
    assert np.exp(good) == pytest.approx(np.array([[0.4, 0, 0.6, 0, 0], [0, 1 / 7, 0, 2 / 7, 4 / 7]]))
    earned = np.where(SCORE >= 0.6, REFERENCE, 0).sum(-1, keepdims=True)
    assert earned * np.exp(good) + (1 - earned) * np.exp(bad) == pytest.approx(REFERENCE)


def test_hir_keeps_the_reference_model_where_a_grade_is_never_earned():
    found = hir_posterior(np.log(REFERENCE), SCORE, [0.6, 2.0], 2)
    assert found[0] == pytest.approx(np.log(REFERENCE[0]))
    assert np.exp(found[1]) == pytest.approx([0, 1 / 7, 0, 2 / 7, 4 / 7])


def test_hir_by_hand():
    # two prompts of even draws; the first has scores 0 to 3, the second 4 to 7: the best half is the second's alone
    start, score = np.log(np.full((2, 4), 0.25)), np.arange(8.0).reshape(2, 4)
    once = targets.hir(start, score, 2, 1, False, ALL[:2])
    assert np.exp(once) == pytest.approx(np.full((2, 4), 0.25))  # the first never earns it and keeps its policy
    thrice = np.exp(targets.hir(start, score, 4, 1, False, ALL[:2]))
    assert thrice[1] == pytest.approx([0, 0, 0.5, 0.5])
    # then draws are 1/8 of each of the first four and 1/4 of 6 and 7: the best quarter begins at 7
    assert np.exp(targets.hir(start, score, 4, 2, False, ALL[:2]))[1] == pytest.approx([0, 0, 0, 1])
    # with the first round's draws kept, 6 and 7 are 3/16 each and 4 and 5 are 1/16: it begins at 6
    assert np.exp(targets.hir(start, score, 4, 2, True, ALL[:2]))[1] == pytest.approx([0, 0, 0.5, 0.5])


def test_hir_holds_every_prompt_to_what_was_sampled():
    start, score = np.log(np.full((2, 4), 0.25)), np.arange(8.0).reshape(2, 4)
    found = np.exp(targets.hir(start, score, 2, 1, True, np.array([True, False])))
    assert found == pytest.approx(np.array([[0, 0, 0.5, 0.5], [0.25, 0.25, 0.25, 0.25]]))


def test_hir_never_calls_best_what_has_no_score():
    start, score = np.log(REFERENCE[:1]), np.array([[1.0, -np.inf, 2.0, -np.inf, 3.0]])
    # finished mass is .1, .15 and .2 of .45: two thirds of it are passed within the last
    assert np.exp(targets.hir(start, score, 3, 1, True, ALL[:1])) == pytest.approx(np.array([[0, 0, 0, 0, 1]]))
    assert np.exp(targets.hir(start, score, 2, 1, True, ALL[:1])) == pytest.approx(
        np.array([[0, 0, 0.15 / 0.35, 0, 0.2 / 0.35]])
    )


def by_ranks(policy, score, n, grades, finished):
    """The distribution of the samples of the best grade, by summing over every n-tuple."""
    kept = np.zeros_like(policy)
    for draws in product(range(len(policy)), repeat=n):
        left = sorted(score[draw] for draw in draws if finished[draw])
        for draw in draws:
            if finished[draw] and score[draw] >= left[len(left) * (grades - 1) // grades]:
                kept[draw] += np.prod(policy[list(draws)])
    return kept / kept.sum()


@pytest.mark.parametrize("finished", [FINISHED, ALL])
def test_hir_within_prompts_is_the_sum_over_all_draws_of_each_round(finished):
    for grades, n, rounds in ((3, 4, 1), (2, 3, 2), (3, 1, 1)):
        wanted = REFERENCE
        for _ in range(rounds):
            wanted = np.stack([by_ranks(p, s, n, grades, finished) for p, s in zip(wanted, SCORE, strict=True)])
        found = targets.hir_within_prompts(np.log(REFERENCE), SCORE, grades, n, rounds, finished)
        assert np.exp(found) == pytest.approx(wanted, abs=1e-12)


def test_one_round_of_hir_is_the_posterior_of_its_best_grade():
    reference, gold, _ = a_world()
    edge = np.sort(gold.ravel())[np.searchsorted(
        np.cumsum(np.exp(reference).ravel()[np.argsort(gold.ravel())]), 2 * 2 / 3, side="right")]
    wanted = hir_posterior(reference, gold, [edge], 1)
    assert targets.hir(reference, gold, 3, 1, True, ALL[:2]) == pytest.approx(wanted)


def test_revision_pushes_the_policy_forward():
    kernel = np.array([[0.0, 1.0, 0.0], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0]])
    policy = np.log([[0.5, 0.25, 0.25]])
    # once: 0, 0.5 + 0.125, 0.125 + 0.25; twice: 0, 0.3125, 0.6875
    assert np.exp(revision(policy, [kernel], [1.0])) == pytest.approx(np.array([[0, 0.625, 0.375]]))
    assert np.exp(revision(policy, [kernel], [0.5, 0.5])) == pytest.approx(np.array([[0, 0.46875, 0.53125]]))
    sparse = revision(policy, [csr_array(kernel)], [0.5, 0.5])
    assert np.exp(sparse) == pytest.approx(np.array([[0, 0.46875, 0.53125]]))
