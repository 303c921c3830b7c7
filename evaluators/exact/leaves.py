"""Every completion of a small vocabulary: strings that end, and strings as long as allowed that do not."""

from __future__ import annotations

from functools import cached_property
from itertools import product

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Leaves:
    """All N completions over some tokens, shortest first.

    Args:
        tokens: V, beside the end, which is token V here.
        length: L, tokens of the longest completion, its end included; one of L tokens without end is cut there.
    """

    def __init__(self, tokens: int, length: int) -> None:
        self.tokens, self.length = tokens, length
        rows = [(*body, tokens) for n in range(length) for body in product(range(tokens), repeat=n)]
        rows += list(product(range(tokens), repeat=length))
        self.ids: Ints = np.full((len(rows), length), tokens + 1)  # (N, L); V is the end, V + 1 padding
        for row, ids in zip(self.ids, rows, strict=True):
            row[: len(ids)] = ids
        self.lengths: Ints = (self.ids <= tokens).sum(1)  # (N,) the end counted
        self.finished: NDArray[np.bool_] = (self.ids == tokens).any(1)

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def prefix_lengths(self) -> Ints:
        """The lengths (S,) of the strings that a token can follow, shortest first, in order: the empty one is first."""
        return np.repeat(np.arange(self.length), self.tokens ** np.arange(self.length))

    @cached_property
    def prefix_tokens(self) -> Ints:
        """The last token (S,) of each of these strings; 0 for the empty one."""
        return self._prefix_numbers % self.tokens

    @cached_property
    def begins_with(self) -> NDArray[np.bool_]:
        """Whether a string (S, 1) begins with another (1, S), or is it."""
        longer = self.prefix_lengths[:, None] - self.prefix_lengths[None]
        cut = self._prefix_numbers[:, None] // self.tokens ** np.maximum(longer, 0)
        return np.asarray((longer >= 0) & (cut == self._prefix_numbers[None]))

    @cached_property
    def _prefix_numbers(self) -> Ints:
        """What each string (S,) reads as, to base V, among those of its length."""
        return np.concatenate([np.arange(self.tokens**length) for length in range(self.length)])

    @cached_property
    def _before(self) -> Ints:
        """(N, L): which of these strings stands before each token of each leaf."""
        body = np.where(self.ids < self.tokens, self.ids, 0)
        places = np.zeros_like(self.ids)
        for length in range(1, self.length):
            first = self.tokens ** np.arange(length)
            places[:, length] = first.sum() + body[:, :length] @ first[::-1]
        return places

    def each(self, next_token: Floats) -> Floats:
        """Return the log-probs (N, L) of each token, 0 on padding.

        Args:
            next_token: Log-probs (S, V + 1) of the token after each string, in nats.
        """
        inside = self.ids <= self.tokens
        return np.asarray(np.where(inside, next_token[self._before, np.where(inside, self.ids, 0)], 0.0))

    def markov(self, logits: Floats) -> Floats:
        """Return the log-probs (N,) under a chain: logits (V + 1, V + 1) of the next token, last row at the start."""
        logps = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        before = np.concatenate([np.full((len(self), 1), self.tokens), self.ids[:, :-1]], 1)
        inside = self.ids <= self.tokens
        each = logps[np.minimum(before, self.tokens), np.minimum(self.ids, self.tokens)]
        return np.asarray(np.where(inside, each, 0.0).sum(1))

    def conditionals(self, logps: Floats) -> Floats:
        """Return the log-probs (N, L) of each token given those before it, 0 on padding, of a distribution (N,)."""
        found, total = np.zeros(self.ids.shape), np.zeros(len(self))
        for place, groups in enumerate(self._prefix_groups):
            mass = np.log(np.maximum(np.bincount(groups, np.exp(logps)), 1e-300))[groups]
            found[:, place] = np.where(place < self.lengths, mass - total, 0.0)
            total = mass
        return found

    @cached_property
    def _prefix_groups(self) -> list[Ints]:
        """For each length 1 to L, which leaves share their first tokens: (N,) numbers of groups."""
        groups = [np.unique(self.ids[:, : t + 1], axis=0, return_inverse=True)[1] for t in range(self.length)]
        return [group.reshape(-1) for group in groups]

    def place(self, ids: Ints) -> Ints:
        """Return where completions (B, L), padded with V + 1, stand among the leaves."""
        base = self.tokens + 2
        weights = base ** np.arange(self.length - 1, -1, -1)
        keys = self.ids @ weights
        order = np.argsort(keys)
        return order[np.searchsorted(keys, ids @ weights, sorter=order)]
