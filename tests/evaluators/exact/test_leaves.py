"""Every completion of a small vocabulary, and what is known of it."""

import numpy as np
import pytest

from alignarena.evaluators.exact.leaves import Leaves

SIZES = [(2, 2), (3, 3), (2, 5), (6, 4)]
END, PAD = 2, 3  # of a vocabulary of two tokens


@pytest.mark.parametrize(("tokens", "length"), SIZES)
def test_there_is_one_leaf_for_every_string(tokens, length):
    leaves = Leaves(tokens, length)
    assert len(leaves) == sum(tokens**n for n in range(length + 1))  # V^n strings of n < L tokens end, V^L are cut
    assert leaves.finished.sum() == len(leaves) - tokens**length
    assert len(np.unique(leaves.ids, axis=0)) == len(leaves)


def test_leaves_by_hand():
    leaves = Leaves(2, 2)
    assert leaves.ids.tolist() == [[END, PAD], [0, END], [1, END], [0, 0], [0, 1], [1, 0], [1, 1]]
    assert leaves.lengths.tolist() == [1, 2, 2, 2, 2, 2, 2]
    assert leaves.finished.tolist() == [True] * 3 + [False] * 4
    assert leaves.prefix_lengths.tolist() == [0, 1, 1]
    assert leaves.prefix_tokens.tolist() == [0, 0, 1]
    assert leaves.begins_with.tolist() == [[True, False, False], [True, True, False], [True, False, True]]


@pytest.mark.parametrize(("tokens", "length"), SIZES)
def test_a_place_is_found_by_its_ids(tokens, length):
    leaves = Leaves(tokens, length)
    order = np.random.default_rng(0).permutation(len(leaves))
    assert leaves.place(leaves.ids[order]).tolist() == order.tolist()


def a_chain(tokens, seed=0):
    return np.random.default_rng(seed).normal(size=(tokens + 1, tokens + 1))


def test_a_chain_by_hand():
    logits = np.log([[1, 1, 2], [3, 0.5, 0.5], [1, 2, 1]])  # after 0, after 1, at the start
    # end; 0 end; 1 end; 00; 01; 10; 11: a quarter each way at the start, but a half for token 1
    expected = [1 / 4, 1 / 4 / 2, 1 / 2 / 8, 1 / 4 / 4, 1 / 4 / 4, 1 / 2 * 3 / 4, 1 / 2 / 8]
    assert np.exp(Leaves(2, 2).markov(logits)) == pytest.approx(np.array(expected))


@pytest.mark.parametrize(("tokens", "length"), SIZES)
def test_a_chain_is_a_distribution(tokens, length):
    assert np.exp(Leaves(tokens, length).markov(a_chain(tokens))).sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(("tokens", "length"), SIZES)
def test_the_conditionals_of_a_chain_are_the_chain(tokens, length):
    leaves, logits = Leaves(tokens, length), a_chain(tokens)
    logps = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    found = leaves.conditionals(leaves.markov(logits))
    for ids, each, count in zip(leaves.ids, found, leaves.lengths, strict=True):
        before = [tokens, *ids[: count - 1]]  # the start is the last row
        assert each[:count] == pytest.approx(logps[before, ids[:count]], abs=1e-9)
        assert not each[count:].any()


@pytest.mark.parametrize(("tokens", "length"), SIZES)
def test_what_stands_before_every_token_is_found_among_the_strings(tokens, length):
    leaves, logits = Leaves(tokens, length), a_chain(tokens)
    logps = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    each = leaves.each(logps[np.where(leaves.prefix_lengths == 0, tokens, leaves.prefix_tokens)])
    assert each == pytest.approx(leaves.conditionals(leaves.markov(logits)), abs=1e-9)
    assert each.sum(1) == pytest.approx(leaves.markov(logits))


def test_a_string_begins_with_its_beginnings():
    leaves = Leaves(2, 4)
    found = leaves.begins_with
    assert found.sum(1).tolist() == (leaves.prefix_lengths + 1).tolist()
    last = found[-1]  # 1 1 1 begins with the empty string, 1, 1 1 and itself
    assert leaves.prefix_lengths[last].tolist() == [0, 1, 2, 3] and leaves.prefix_tokens[last].tolist() == [0, 1, 1, 1]
