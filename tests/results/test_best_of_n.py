from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest

from alignarena.results.best_of_n import best_of_n_kl, best_of_n_reward, exact_best_of_n_kl


@pytest.mark.parametrize(("n", "kl"), [(1, 0.0), (2, 0.193), (4, 0.636), (8, 1.204), (16, 1.835), (64, 3.175)])
def test_kl_of_a_score_without_ties(n: int, kl: float) -> None:
    assert best_of_n_kl(n) == pytest.approx(kl, abs=5e-4)


def test_kl_of_few_outcomes_is_less_than_the_bound() -> None:
    fifths = np.full(5, 0.2)
    assert exact_best_of_n_kl(4, fifths) == pytest.approx(0.607, abs=5e-4)
    assert exact_best_of_n_kl(16, fifths) == pytest.approx(1.480, abs=5e-4)
    assert exact_best_of_n_kl(4, [1.0]) == 0.0
    assert exact_best_of_n_kl(4, np.full(100_000, 1e-5)) == pytest.approx(best_of_n_kl(4), abs=1e-4)


def test_the_expected_best_is_the_mean_over_all_subsets() -> None:
    scores = np.random.default_rng(0).normal(size=7)
    for n in (1, 2, 3, 7):
        expected = np.mean([max(one) for one in combinations(scores, n)])
        assert best_of_n_reward(n, scores) == pytest.approx(expected)


def test_gold_of_what_a_proxy_chose_with_ties_at_random() -> None:
    proxy, gold = [1.0, 2.0, 2.0, 0.0], [0.1, 0.4, 0.8, 0.9]
    chosen = []
    for pair in combinations(range(4), 2):
        best = max(proxy[i] for i in pair)
        chosen.append(np.mean([gold[i] for i in pair if proxy[i] == best]))
    assert best_of_n_reward(2, proxy, gold) == pytest.approx(np.mean(chosen))


def test_rows_are_taken_each_for_itself() -> None:
    scores = np.random.default_rng(1).normal(size=(3, 6))
    assert best_of_n_reward(4, scores) == pytest.approx([float(best_of_n_reward(4, row)) for row in scores])
    assert math.isclose(best_of_n_reward(1, scores)[0], scores[0].mean())


def test_more_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="best of 4"):
        best_of_n_reward(4, [1.0, 2.0])
