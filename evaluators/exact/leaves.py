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
    def prefixes(self) -> Ints:
        """The V^(L-1) strings of L - 1 tokens: every state in which a token is chosen is a prefix of one of them."""
        return np.array(list(product(range(self.tokens), repeat=self.length - 1)))

    @cached_property
    def _states(self) -> Ints:
        """(N, L): in which of :attr:`prefixes` the state before each token of each leaf is found."""
        body = np.where(self.ids < self.tokens, self.ids, 0)[:, : self.length - 1]
        weights = self.tokens ** np.arange(self.length - 2, -1, -1)
        return np.repeat((body @ weights)[:, None], self.length, 1)

    def each(self, next_token: Floats) -> Floats:
        """Return the log-probs (N, L) of each token, 0 on padding.

        Args:
            next_token: Log-probs (V^(L-1), L, V + 1) of the token after the first t tokens of each prefix, in nats.
        """
        inside = self.ids <= self.tokens
        places = np.arange(self.length)[None, :]
        chosen = next_token[self._states, places, np.where(inside, self.ids, 0)]
        return np.asarray(np.where(inside, chosen, 0.0))

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
