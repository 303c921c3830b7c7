"""Which keys each query of packed rows reads: the rows cut into blocks, blocks of like shape side by side.

A packed row ``[prompt][y1]..[yK]`` is cut into blocks of queries; a completion's block reads the keys of its prompt and
its own. Short completions of a prompt share a block, each hidden from its neighbours: that computes more scores and
copies fewer keys. A prefix that all prompts begin with may stand before the rows once, and every block reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, takewhile
from math import isqrt
from typing import Any, NamedTuple

import numpy as np

from alignarena.harness.tokens import Ids

Ints = np.ndarray[Any, np.dtype[np.int64]]
_QUERIES = 128  # of a block: a longer segment is cut, which skips most of what causality masks
_SCORES = 49_152  # query-key pairs computed at once: a few MiB, so that they stay in the cache
_JOINED = 100  # copying a key costs as much as scoring it for so many queries (docs/performance.md)
_SAVES = 16  # tokens that sharing a prefix must save: it costs one more block a layer
_SLACK = 4_096  # padded pairs that cost less than one more set of kernel calls
_NEVER = 2**30  # position of a padded key: later than every query


class PackedRow(NamedTuple):
    """Where a row lies among the N tokens: its first token, its prompt's length, and its completions' lengths."""

    start: int
    prompt: int
    completions: tuple[int, ...]
    prefix: int = 0  # so many of the N tokens, the first ones, are the beginning of its prompt


def with_prefix(prefix: int, rows: Sequence[tuple[int, tuple[int, ...]]]) -> list[PackedRow]:
    """Place rows, given as the length of the prompt and of its completions, after a prefix that all prompts begin with.

    Returns:
        The prefix as a row of its own, if there is one, and the rows, whose prompts go on where it ends.
    """
    placed = [PackedRow(0, prefix, (0,))] if prefix else []
    start = prefix
    for prompt, completions in rows:
        placed.append(PackedRow(start, prompt - prefix, completions, prefix))
        start += prompt - prefix + sum(completions)
    return placed


def common_prefix(prompts: Sequence[Ids]) -> int:
    """Return how many tokens all prompts begin with, if computing them once saves anything; each keeps its last one."""
    same = takewhile(lambda tokens: len(set(tokens)) == 1, zip(*prompts, strict=False))
    length = min(len(list(same)), min(map(len, prompts)) - 1)
    return length if length * (len(prompts) - 1) >= _SAVES else 0


class PaddedBlocks(NamedTuple):
    """Tokens that ask and answer in nb blocks, their positions in their sequences, and whose they are (0: a prompt's).

    Padding asks at -1 and answers later than every query.
    """

    q: Ints  # (nb, qm)
    q_position: Ints
    q_owner: Ints
    k: Ints  # (nb, km)
    k_position: Ints
    k_owner: Ints


def padded_blocks(rows: Sequence[PackedRow]) -> Iterator[PaddedBlocks]:
    """Yield the blocks of rows, those that are computed together padded to one shape; each token asks once."""
    tokens = _Tokens.of(rows)
    for blocks in _alike(_blocks(rows)):
        yield _padded(blocks, tokens)


class _Tokens(NamedTuple):
    """Of each of the N tokens: its position in its sequence, and the completion it belongs to, 0 for a prompt's."""

    position: Ints
    owner: Ints

    @classmethod
    def of(cls, rows: Sequence[PackedRow]) -> _Tokens:
        """Place the tokens of rows that stand one after another."""
        sizes = np.fromiter(chain.from_iterable((row.prompt, *row.completions) for row in rows), np.int64)
        starts = np.fromiter(chain.from_iterable(
            (row.prefix, *(row.prefix + row.prompt,) * len(row.completions)) for row in rows), np.int64)  # fmt: skip
        owners = np.arange(1, len(sizes) + 1)
        owners[np.cumsum([0, *(1 + len(row.completions) for row in rows[:-1])])] = 0
        inside = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return cls(np.repeat(starts, sizes) + inside, np.repeat(owners, sizes))


class _Blocks(NamedTuple):
    """Some blocks, each array (nb,). Keys are the shared prefix, a stretch of a prompt, and tokens of their own."""

    query: Ints  # first token that asks
    queries: Ints
    prefix: Ints  # tokens, from the first of all
    prompt: Ints  # first token of the stretch
    prompts: Ints
    own: Ints  # first token of their own
    owns: Ints

    @property
    def keys(self) -> Ints:
        """Return how many tokens answer."""
        return self.prefix + self.prompts + self.owns

    def chosen(self, which: Any) -> _Blocks:
        """Return some of the blocks."""
        return _Blocks(*(each[which] for each in self))


def _blocks(rows: Sequence[PackedRow]) -> _Blocks:
    """Cut rows into blocks: a prompt with its first completions as one sequence, then others, several where short."""
    count = np.array([len(row.completions) for row in rows])
    prompt, prompts, prefix, most = (np.repeat(each, count) for each in zip(*(
        (row.start, row.prompt, row.prefix, isqrt(_JOINED * (row.prefix + row.prompt)) + 1) for row in rows
    ), strict=True))  # fmt: skip
    length = np.concatenate([row.completions for row in rows])
    first = np.cumsum(count) - count  # completion of each row
    start = np.cumsum(length) - length
    inside = start - np.repeat(start[first], count)  # among the row's completions
    opens = np.diff(inside // most, prepend=-1) != 0
    opens[first] = True
    length = np.add.reduceat(length, np.flatnonzero(opens))
    leads = np.isin(np.flatnonzero(opens), first)
    prompt, prompts, prefix, inside = (each[opens] for each in (prompt, prompts, prefix, inside))
    start = prompt + np.where(leads, 0, prompts + inside)
    length += np.where(leads, prompts, 0)
    prompts = np.where(leads, 0, prompts)
    pieces = -(-length // _QUERIES)
    of = np.repeat(np.arange(len(length)), pieces)
    done = (np.arange(len(of)) - np.repeat(np.cumsum(pieces) - pieces, pieces)) * _QUERIES
    stop = np.minimum(done + _QUERIES, length[of])
    return _Blocks(start[of] + done, stop - done, prefix[of], prompt[of], prompts[of], start[of], stop)


def _alike(blocks: _Blocks) -> Iterator[_Blocks]:
    """Group blocks that waste little when padded to a common shape."""
    order = np.lexsort((-blocks.queries, -blocks.keys))
    begin = queries = keys = needed = 0
    for at, (q, k) in enumerate(zip(blocks.queries[order].tolist(), blocks.keys[order].tolist(), strict=True)):
        area = (at - begin + 1) * max(queries, q) * keys
        wasted = area - needed - q * k
        if at and (area > _SCORES or wasted > max(0.3 * (needed + q * k), _SLACK)):
            yield blocks.chosen(order[begin:at])
            begin, queries, keys, needed = at, q, k, q * k
        else:
            queries, keys, needed = max(queries, q), max(keys, k), needed + q * k
    yield blocks.chosen(order[begin:])


def _padded(blocks: _Blocks, tokens: _Tokens) -> PaddedBlocks:
    query, queries, prefix, prompt, prompts, own, _ = (each[:, None] for each in blocks)
    keys = blocks.keys[:, None]
    at, to = np.arange(queries.max())[None], np.arange(keys.max())[None]
    shared = np.where(to < prefix, to, prompt - prefix + to)
    answers = np.where(to < prefix + prompts, shared, own - prefix - prompts + to)
    q, k = np.where(at < queries, query + at, 0), np.where(to < keys, answers, 0)
    return PaddedBlocks(
        q=q, q_position=np.where(at < queries, tokens.position[q], -1), q_owner=tokens.owner[q],
        k=k, k_position=np.where(to < keys, tokens.position[k], _NEVER), k_owner=tokens.owner[k],
    )  # fmt: skip
