from __future__ import annotations

import math

import numpy as np
import pytest

from alignarena.results.kl import exact_per_prefix, k1, k3, per_sequence, per_token


def test_estimates_of_one_token_by_hand() -> None:
    # policy .5, reference .25: k1 = log 2, k3 = .5 - 1 + log 2
    logps, reference = [math.log(0.5)], [math.log(0.25)]
    assert k1(logps, reference) == pytest.approx([math.log(2)])
    assert k3(logps, reference) == pytest.approx([math.log(2) - 0.5])


def test_exact_kl_by_hand() -> None:
    policy, reference = np.log([[0.5, 0.5]]) + 3.0, np.log([[0.25, 0.75]])  # logits need no normalisation
    assert exact_per_prefix(policy, reference) == pytest.approx([0.5 * math.log(2) + 0.5 * math.log(2 / 3)])
    assert exact_per_prefix([[0.0, -math.inf]], [[0.0, 0.0]]) == pytest.approx([math.log(2)])
    assert exact_per_prefix([[0.0, 0.0]], [[0.0, -math.inf]])[0] == math.inf


def test_all_three_have_the_same_mean_and_the_exact_one_scatters_least() -> None:
    """Two tokens of three symbols, the second's distributions depending on the first: all nine are enumerated."""
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 3)), rng.normal(size=(2, 3, 3))
    logp = [np.log(np.exp(x) / np.exp(x).sum(-1, keepdims=True)) for x in (first, second)]
    true = sum(math.exp(logp[0][0, a] + logp[1][0, a, b]) * (logp[0][0, a] + logp[1][0, a, b] - logp[0][1, a]
               - logp[1][1, a, b]) for a in range(3) for b in range(3))  # fmt: skip
    a = rng.choice(3, 200_000, p=np.exp(logp[0][0]))
    b = np.array([rng.choice(3, 200_000, p=np.exp(logp[1][0, i])) for i in range(3)])[a, np.arange(200_000)]
    tokens = [np.stack([logp[0][side, a], logp[1][side, a, b]], axis=1) for side in (0, 1)]
    prefixes = np.stack([np.broadcast_to(exact_per_prefix(first[0], first[1]), a.shape),
                         exact_per_prefix(second[0], second[1])[a]], axis=1)  # fmt: skip
    mask = np.ones((200_000, 2))
    estimates = [per_sequence(one, mask) for one in (k1(*tokens), k3(*tokens), prefixes)]
    for one in estimates:
        assert one.mean() == pytest.approx(true, abs=5 * one.std() / math.sqrt(200_000))
    assert estimates[2].std() < min(estimates[0].std(), estimates[1].std())
    assert (estimates[1] >= 0).all()
    assert (estimates[0] < 0).any()


def test_padding_counts_for_nothing() -> None:
    tokens, mask = [[1.0, 2.0], [3.0, math.nan]], [[1, 1], [1, 0]]
    assert per_sequence(tokens, mask).tolist() == [3.0, 3.0]
    assert per_token(tokens, mask) == 2.0
