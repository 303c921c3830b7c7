"""Attention over packed rows without padding: only the blocks of scores that the shared-prefix layout needs.

All tokens of a micro-batch stand in one row of length N. A packed row ``[prompt][y1]..[yK]`` of it is cut into blocks
of queries; a completion's block reads the keys of its prompt and its own, never its neighbours'. A prefix that all
prompts begin with may stand before the rows once, and every block reads it. Blocks of like shape are computed
together, and the backward pass computes the probabilities again, so that memory grows with N and not
with its square. On CPU this is 3-4 times as fast as torch's masked SDPA (docs/performance.md); it needs nothing but
matrix products, so it runs on any device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from alignarena.harness.tokens import Ids

BLOCKS = "alignarena_blocks"  # the name under which transformers finds this implementation
_QUERIES = 128  # of a block: a longer segment is cut, which skips most of what causality masks
_SCORES = 49_152  # query-key pairs computed at once: a few MiB, so that they stay in the cache
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


@dataclass
class _Bucket:
    """nb blocks padded to qm queries and km keys."""

    q: Tensor  # (nb * qm,) which tokens ask
    k: Tensor  # (nb * km,) which tokens answer
    q_position: Tensor  # (nb, qm)
    k_position: Tensor  # (nb, km)
    valid: Tensor | None  # (nb * qm, 1, 1) bool; None where no query is padding
    bias: dict[tuple[int | None, torch.dtype], Tensor] = field(default_factory=dict)

    def mask_(self, scores: Tensor, window: int | None) -> None:
        """Hide later keys and those outside a sliding window from scores (nb, KV, qm, G, km), in place."""
        key = window, scores.dtype
        if key not in self.bias:
            distance = self.q_position[:, :, None] - self.k_position[:, None, :]
            seen = distance >= 0 if window is None else (distance >= 0) & (distance < window)
            bias = torch.zeros(seen.shape, dtype=scores.dtype, device=scores.device)
            self.bias[key] = bias.masked_fill_(~seen, torch.finfo(scores.dtype).min)[:, None, :, None]
        scores.add_(self.bias[key])


class PackedLayout:
    """Which keys each of the N tokens of a micro-batch attends to."""

    def __init__(self, rows: Sequence[PackedRow], device: torch.device | str = "cpu") -> None:
        self.rows = tuple(rows)
        self.buckets: list[_Bucket] = []
        size = sum(row.prompt + sum(row.completions) for row in rows)
        place = np.zeros(size, dtype=np.int64)  # of each token among the outputs of all buckets
        offset = 0
        for blocks in _alike([block for row in rows for block in _blocks(row)]):
            queries = max(len(block.q) for block in blocks)
            for i, block in enumerate(blocks):
                place[block.q] = offset + i * queries + np.arange(len(block.q))
            offset += len(blocks) * queries
            self.buckets.append(_bucket(blocks, device))
        self.place = torch.from_numpy(place).to(device)

    def attend(
        self, module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int | None
    ) -> Tensor:
        """Return outputs (1, N, H, D) of queries (1, H, N, D), keys and values (1, KV, N, D)."""
        by_token = [x[0].transpose(0, 1).contiguous() for x in (query, key, value)]
        outputs: Tensor = _BlockAttention.apply(*by_token, self, scaling, window)  # type: ignore[no-untyped-call]
        return outputs[None]


class _Block(NamedTuple):
    q: np.ndarray[Any, Any]
    k: np.ndarray[Any, Any]
    first: int  # position of the first query


def _blocks(row: PackedRow) -> Iterator[_Block]:
    """Cut a row into blocks: its prompt with the first completion as one sequence, then each other completion."""
    common = np.arange(row.prefix)
    whole = np.concatenate([common, np.arange(row.start, row.start + row.prompt)])
    at = row.start
    for number, length in enumerate(row.completions):
        prefix = whole if number else common
        stop = at + length + (0 if number else row.prompt)
        for a in range(at, stop, _QUERIES):
            b = min(a + _QUERIES, stop)
            yield _Block(np.arange(a, b), np.concatenate([prefix, np.arange(at, b)]), len(prefix) + a - at)
        at = stop


def _alike(blocks: list[_Block]) -> list[list[_Block]]:
    """Group blocks that waste little when padded to a common shape."""
    groups: list[list[_Block]] = []
    queries = keys = needed = 0
    for block in sorted(blocks, key=lambda block: (-len(block.k), -len(block.q))):
        pairs = len(block.q) * len(block.k)
        if groups:
            area = (len(groups[-1]) + 1) * max(queries, len(block.q)) * keys
            if area <= _SCORES and area - needed - pairs <= max(0.3 * (needed + pairs), _SLACK):
                groups[-1].append(block)
                queries, needed = max(queries, len(block.q)), needed + pairs
                continue
        groups.append([block])
        queries, keys, needed = len(block.q), len(block.k), pairs
    return groups


def _bucket(blocks: list[_Block], device: torch.device | str) -> _Bucket:
    shape = len(blocks), max(len(block.q) for block in blocks)
    q, k = np.zeros(shape, np.int64), np.zeros((len(blocks), max(len(block.k) for block in blocks)), np.int64)
    q_position, k_position = np.full(q.shape, -1), np.full(k.shape, _NEVER)
    for i, block in enumerate(blocks):
        q[i, : len(block.q)], k[i, : len(block.k)] = block.q, block.k
        q_position[i, : len(block.q)] = block.first + np.arange(len(block.q))
        k_position[i, : len(block.k)] = np.arange(len(block.k))
    valid = q_position.reshape(-1, 1, 1) >= 0

    def tensor(array: np.ndarray[Any, Any]) -> Tensor:
        return torch.from_numpy(array).to(device)

    return _Bucket(tensor(q.ravel()), tensor(k.ravel()), tensor(q_position), tensor(k_position),
                   None if valid.all() else tensor(valid))  # fmt: skip


class _BlockAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, layout: PackedLayout, scaling: float, window: int | None
    ) -> Tensor:
        ctx.save_for_backward(query, key, value)
        ctx.how = layout, scaling, window
        outputs = []
        scaled = query * scaling
        for bucket in layout.buckets:
            q, k, v = _taken(bucket, scaled, key, value)
            outputs.append(_to_tokens(torch.bmm(_probs(bucket, q, k, window), v), bucket.q_position))
        return torch.cat(outputs).index_select(0, layout.place)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value = ctx.saved_tensors
        layout, scaling, window = ctx.how
        scaled = query * scaling
        slopes_q = []
        # a prompt's keys answer several completions: summed in fp32
        slope_k, slope_v = (torch.zeros(x.shape, dtype=torch.float32, device=x.device) for x in (key, value))
        for bucket in layout.buckets:
            q, k, v = _taken(bucket, scaled, key, value)
            probs = _probs(bucket, q, k, window)
            above = grads[0].index_select(0, bucket.q)
            above = _to_heads(above if bucket.valid is None else above * bucket.valid, bucket.q_position, key.shape[1])
            slope_s = torch._softmax_backward_data(torch.bmm(above, v.transpose(1, 2)), probs, -1, probs.dtype)
            slopes_q.append(_to_tokens(torch.bmm(slope_s, k), bucket.q_position))
            for total, part in ((slope_k, torch.bmm(slope_s.transpose(1, 2), q)),
                                (slope_v, torch.bmm(probs.transpose(1, 2), above))):  # fmt: skip
                total.index_add_(0, bucket.k, _to_tokens(part, bucket.k_position).float())
        slope_q = torch.cat(slopes_q).index_select(0, layout.place).mul_(scaling)
        return slope_q, slope_k.to(key.dtype), slope_v.to(value.dtype), None, None, None


def _taken(bucket: _Bucket, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return a bucket's queries (nb * KV, qm * G, D), keys and values (nb * KV, km, D)."""
    kv = key.shape[1]
    q = _to_heads(query.index_select(0, bucket.q), bucket.q_position, kv)
    k, v = (_to_heads(x.index_select(0, bucket.k), bucket.k_position, kv) for x in (key, value))
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
    nb, queries = bucket.q_position.shape
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
