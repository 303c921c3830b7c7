from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize
from scipy.sparse.csgraph import connected_components

from alignarena.results.strengths import bradley_terry, davidson, strongly_connected, with_prior


def table(rng: np.random.Generator, count: int = 5) -> np.ndarray:
    wins = rng.integers(1, 20, (count, count)).astype(float)
    np.fill_diagonal(wins, 0)
    return wins


def test_two_methods_have_the_odds_of_their_wins() -> None:
    strengths = bradley_terry(np.array([[0.0, 3.0], [1.0, 0.0]]))
    assert strengths == pytest.approx([math.log(3) / 2, -math.log(3) / 2])


def test_a_symmetric_table_gives_equal_strengths() -> None:
    wins = np.random.default_rng(0).integers(1, 9, (4, 4)).astype(float)
    wins = wins + wins.T - 2 * np.diag(wins.diagonal())
    assert bradley_terry(wins) == pytest.approx(np.zeros(4), abs=1e-9)
    assert davidson(wins, wins)[0] == pytest.approx(np.zeros(4), abs=1e-9)


def test_strengths_are_those_of_choix() -> None:
    choix = pytest.importorskip("choix")
    tables = np.stack([table(np.random.default_rng(seed)) for seed in range(4)])
    for wins, found in zip(tables, bradley_terry(tables), strict=True):
        assert found == pytest.approx(choix.ilsr_pairwise_dense(wins), abs=1e-6)


def test_strengths_are_those_of_the_minorise_maximise_algorithm() -> None:
    wins = table(np.random.default_rng(5))
    games, p = wins + wins.T, np.ones(5)
    for _ in range(5000):  # Hunter (2004): p_i = W_i / sum_j n_ij / (p_i + p_j)
        p = wins.sum(1) / (games / (p[:, None] + p)).sum(1)
        p /= np.exp(np.log(p).mean())
    assert bradley_terry(wins) == pytest.approx(np.log(p), abs=1e-8)


def test_davidson_is_the_maximum_of_its_likelihood() -> None:
    rng = np.random.default_rng(6)
    wins, ties = table(rng, 4), table(rng, 4)
    ties = np.triu(ties) + np.triu(ties).T

    def loss(x: np.ndarray) -> float:
        s, even = np.append(x[:3], -x[:3].sum()), x[3]
        total = 0.0
        for i in range(4):
            for j in range(i):
                logits = np.array([s[i], s[j], even + (s[i] + s[j]) / 2])
                total -= np.array([wins[i, j], wins[j, i], ties[i, j]]) @ (logits - np.logaddexp.reduce(logits))
        return total

    best = optimize.minimize(loss, np.zeros(4), method="BFGS", options={"gtol": 1e-7})
    strengths, evenness = davidson(wins, ties)
    assert strengths[:3] == pytest.approx(best.x[:3], abs=1e-4)
    assert evenness == pytest.approx(best.x[3], abs=1e-4)


def test_davidson_without_ties_is_bradley_terry() -> None:
    wins = table(np.random.default_rng(7))
    strengths, evenness = davidson(wins, np.zeros((5, 5)))
    assert strengths == pytest.approx(bradley_terry(wins), abs=1e-4)
    assert math.exp(evenness) < 1e-4


def test_davidson_of_two_methods_by_hand() -> None:
    # 4 wins, 1 loss, 6 ties: p = 2 and 1/2, so that v sqrt(p_i p_j) = v = 6 / 4 x 2 = 3.
    strengths, evenness = davidson(np.array([[0.0, 4.0], [1.0, 0.0]]), np.array([[0.0, 6.0], [6.0, 0.0]]))
    assert np.exp(strengths) == pytest.approx([2.0, 0.5])
    assert math.exp(evenness) == pytest.approx(3.0)


def test_connected_is_what_scipy_calls_strongly_connected() -> None:
    tables = (np.random.default_rng(8).random((200, 6, 6)) < 0.4).astype(float)
    expected = [connected_components(one, connection="strong")[0] == 1 for one in tables]
    assert 20 < sum(expected) < 180
    assert strongly_connected(tables).tolist() == expected


def test_a_method_that_always_wins_is_finite_by_the_prior_alone() -> None:
    tables = np.array([[[0.0, 5.0], [0.0, 0.0]], [[0.0, 5.0], [5.0, 0.0]]])
    connected = strongly_connected(tables)
    assert connected.tolist() == [False, True]
    found = bradley_terry(with_prior(tables, 1, connected))
    assert found[0, 0] - found[0, 1] == pytest.approx(math.log(5.1 / 0.1))
    assert found[1] == pytest.approx([0, 0])
