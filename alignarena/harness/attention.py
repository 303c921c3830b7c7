"""Attention over packed rows without padding: only the blocks of scores that the shared-prefix layout needs.

All tokens of a micro-batch stand in one row of length N. A packed row ``[prompt][y1]..[yK]`` of it is cut into blocks
of queries; a completion's block reads the keys of its prompt and its own. Short completions of a prompt share a block,
where a mask hides each from its neighbours: that computes more scores and copies fewer keys. A prefix that all prompts
begin with may stand before the rows once, and every block reads it. Blocks of like shape are computed together, and the
backward pass computes the probabilities again where they are many, so that memory grows with N and not with its square.
On CPU this is 3-4 times as fast as torch's masked SDPA (docs/performance.md); it needs nothing but matrix products, so
it runs on any device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, takewhile
from math import isqrt
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from alignarena.harness.tokens import Ids

Ints = np.ndarray[Any, np.dtype[np.int64]]
BLOCKS = "alignarena_blocks"  # the name under which transformers finds this implementation
_QUERIES = 128  # of a block: a longer segment is cut, which skips most of what causality masks
_SCORES = 49_152  # query-key pairs computed at once: a few MiB, so that they stay in the cache
_KEPT = 2**20  # probabilities of a layer kept for the backward pass; of more it computes them again
_JOINED = 100  # copying a key costs as much as scoring it for so many queries (docs/performance.md)
_SAVES = 16  # tokens that sharing a prefix must save: it costs one more block a layer
_SLACK = 4_096  # padded pairs that cost less than one more set of kernel calls


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


@dataclass
class _Bucket:
    """nb blocks padded to qm queries and km keys."""

    q: Tensor  # (nb, qm) which tokens ask
    k: Tensor  # (nb, km) which tokens answer
    distance: Tensor  # (nb, qm, km) tokens from a key to the query that sees it; less than 0 where it does not
    valid: Tensor | None  # (nb * qm, 1, 1) bool; None where no query is padding
    bias: dict[tuple[int | None, torch.dtype], Tensor] = field(default_factory=dict)

    def mask_(self, scores: Tensor, window: int | None) -> None:
        """Hide what a query does not see and what is outside a sliding window, in scores (nb, KV, qm, G, km)."""
        key = window, scores.dtype
        if key not in self.bias:
            seen = self.distance >= 0 if window is None else (self.distance >= 0) & (self.distance < window)
            bias = torch.zeros(seen.shape, dtype=scores.dtype, device=scores.device)
            self.bias[key] = bias.masked_fill_(~seen, torch.finfo(scores.dtype).min)[:, None, :, None]
        scores.add_(self.bias[key])


class PackedLayout:
    """Which keys each of the N tokens of a micro-batch attends to."""

    def __init__(self, rows: Sequence[PackedRow], device: torch.device | str = "cpu") -> None:
        self.rows = tuple(rows)
        self.buckets: list[_Bucket] = []
        tokens = _Tokens.of(rows)
        place = np.zeros(len(tokens.owner), dtype=np.int64)  # of each token among the outputs of all buckets
        offset = 0
        for blocks in _alike(_blocks(rows)):
            q, asks, k, answers = _padded(blocks)
            place[q[asks]] = offset + np.flatnonzero(asks)
            offset += q.size
            distance = np.where(asks[:, :, None] & answers[:, None], tokens.distance(q, k), -1)
            queries, keys, between = (torch.from_numpy(array).to(device) for array in (q, k, distance))
            valid = None if asks.all() else torch.from_numpy(asks).to(device).view(-1, 1, 1)
            self.buckets.append(_Bucket(queries, keys, between, valid))
        self.place = torch.from_numpy(place).to(device)
        self.pairs = sum(bucket.distance.numel() for bucket in self.buckets)  # padding counted

    def attend(
        self, module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int | None
    ) -> Tensor:
        """Return outputs (1, N, H, D) of queries (1, H, N, D), keys and values (1, KV, N, D)."""
        by_token = [x[0].transpose(0, 1).contiguous() for x in (query, key, value)]
        outputs: Tensor = _BlockAttention.apply(*by_token, self, scaling, window)  # type: ignore[no-untyped-call]
        return outputs[None]


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

    def distance(self, q: Ints, k: Ints) -> Ints:
        """Return how far keys (nb, km) lie before queries (nb, qm) of the same row; -1 in a neighbour."""
        owner = self.owner[k][:, None]
        seen = (owner == 0) | (owner == self.owner[q][:, :, None])
        return np.where(seen, self.position[q][:, :, None] - self.position[k][:, None], -1)


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


def _padded(blocks: _Blocks) -> tuple[Ints, Any, Ints, Any]:
    """Return which tokens ask (nb, qm) and whether they are not padding, and which answer (nb, km)."""
    query, queries, prefix, prompt, prompts, own, _ = (each[:, None] for each in blocks)
    keys = blocks.keys[:, None]
    at, to = np.arange(queries.max())[None], np.arange(keys.max())[None]
    shared = np.where(to < prefix, to, prompt - prefix + to)
    answers = np.where(to < prefix + prompts, shared, own - prefix - prompts + to)
    return np.where(at < queries, query + at, 0), at < queries, np.where(to < keys, answers, 0), to < keys


class _BlockAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, layout: PackedLayout, scaling: float, window: int | None
    ) -> Tensor:
        ctx.how = layout, scaling, window
        outputs, kept = [], []
        few = any(ctx.needs_input_grad) and layout.pairs * query.shape[1] <= _KEPT
        scaled = query * scaling
        for bucket in layout.buckets:
            q, k, v = _taken(bucket, scaled, key, value)
            probs = _probs(bucket, q, k, window)
            outputs.append(_to_tokens(torch.bmm(probs, v), bucket.q))
            kept += [probs] if few else []
        ctx.save_for_backward(query, key, value, *kept)
        return torch.cat(outputs).index_select(0, layout.place)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *kept = ctx.saved_tensors
        layout, scaling, window = ctx.how
        scaled = query * scaling
        slopes_q = []
        # a prompt's keys answer several completions: summed in fp32
        slope_k, slope_v = (torch.zeros(x.shape, dtype=torch.float32, device=x.device) for x in (key, value))
        for i, bucket in enumerate(layout.buckets):
            q, k, v = _taken(bucket, scaled, key, value)
            probs = kept[i] if kept else _probs(bucket, q, k, window)
            above = grads[0].index_select(0, bucket.q.view(-1))
            above = _to_heads(above if bucket.valid is None else above * bucket.valid, bucket.q, key.shape[1])
            slope_s = torch._softmax_backward_data(torch.bmm(above, v.transpose(1, 2)), probs, -1, probs.dtype)
            slopes_q.append(_to_tokens(torch.bmm(slope_s, k), bucket.q))
            for total, part in ((slope_k, torch.bmm(slope_s.transpose(1, 2), q)),
                                (slope_v, torch.bmm(probs.transpose(1, 2), above))):  # fmt: skip
                total.index_add_(0, bucket.k.view(-1), _to_tokens(part, bucket.k).float())
        slope_q = torch.cat(slopes_q).index_select(0, layout.place).mul_(scaling)
        return slope_q, slope_k.to(key.dtype), slope_v.to(value.dtype), None, None, None


def _taken(bucket: _Bucket, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return a bucket's queries (nb * KV, qm * G, D), keys and values (nb * KV, km, D)."""
    kv = key.shape[1]
    q = _to_heads(query.index_select(0, bucket.q.view(-1)), bucket.q, kv)
    k, v = (_to_heads(x.index_select(0, bucket.k.view(-1)), bucket.k, kv) for x in (key, value))
    return q, k, v


def _to_heads(tokens: Tensor, like: Tensor, kv: int) -> Tensor:
    """Turn (nb * T, KV * G, D) into (nb * KV, T * G, D): the G queries of a key head become rows of one product."""
    (nb, length), (_, heads, width) = like.shape, tokens.shape
    return tokens.view(nb, length, kv, heads // kv, width).transpose(1, 2).reshape(nb * kv, -1, width)


def _to_tokens(heads: Tensor, like: Tensor) -> Tensor:
    """Undo :func:`_to_heads`."""
    (nb, length), (groups, rows, width) = like.shape, heads.shape
    kv, per_key = groups // nb, rows // length
    return heads.view(nb, kv, length, per_key, width).transpose(1, 2).reshape(nb * length, kv * per_key, width)


def _probs(bucket: _Bucket, q: Tensor, k: Tensor, window: int | None) -> Tensor:
    scores = torch.bmm(q, k.transpose(1, 2))
    nb, queries = bucket.q.shape
    bucket.mask_(scores.view(nb, -1, queries, scores.shape[1] // queries, k.shape[1]), window)
    return torch.softmax(scores, -1)


def _attend(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    scaling: float | None = None, layout: Any = None, sliding_window: int | None = None, **others: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Attend as a layout says. Shapes are transformers': (B, H, T, D) in, (B, T, H, D) out."""
    if layout is None and sliding_window is None:  # one plain sequence
        outputs: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **others
        )
        return outputs
    asked = [name for name in ("softcap", "s_aux", "position_bias") if others.get(name) is not None]
    if asked or layout is None:
        raise NotImplementedError(f"block attention has no {', '.join(asked) or 'layout to follow'}")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    # rotary embeddings leave queries and keys in fp32 under autocast
    return layout.attend(module, query.to(value.dtype), key.to(value.dtype), value, scale, sliding_window), None


def _no_mask(*, attention_mask: Tensor | None = None, **others: Any) -> None:
    """Stand in for a mask, which would be N x N: the layout says who sees whom."""
    if attention_mask is not None:
        raise NotImplementedError("block attention takes no padding mask")


AttentionInterface.register(BLOCKS, _attend)
AttentionMaskInterface.register(BLOCKS, _no_mask)
