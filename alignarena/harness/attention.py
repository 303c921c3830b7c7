"""Attention over packed rows without padding: only the blocks of scores that the shared-prefix layout needs.

All tokens of a micro-batch stand in one row of length N. Its blocks (``blocks``) are computed a bucket of like shape a
time, and the backward pass computes the probabilities again where they are many. On CPU this is 3-4 times as fast as
torch's masked SDPA (docs/performance.md); it needs nothing but matrix products, so it runs on any device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from alignarena.harness.blocks import PackedRow, PaddedBlocks, padded_blocks

BLOCKS = "alignarena_blocks"  # the name under which transformers finds this implementation
_KEPT = 2**21  # probabilities of a layer kept for the backward pass; of more it computes them again


@dataclass
class _Bucket:
    """nb blocks padded to qm queries and km keys."""

    q: Tensor  # (nb, qm) which tokens ask
    q_position: Tensor
    q_owner: Tensor
    k: Tensor  # (nb, km) which tokens answer
    k_position: Tensor
    k_owner: Tensor
    bias: dict[tuple[int | None, torch.dtype], Tensor] = field(default_factory=dict, init=False)

    @classmethod
    def of(cls, padded: PaddedBlocks, device: torch.device | str) -> _Bucket:
        """Put blocks on a device."""
        return cls(*(torch.from_numpy(array).to(device) for array in padded))

    @cached_property
    def valid(self) -> Tensor | None:
        """Whether a query is not padding, (nb * qm, 1, 1) bool; None where none is."""
        asks = self.q_position >= 0
        return None if asks.all() else asks.view(-1, 1, 1)

    @property
    def pairs(self) -> int:
        """Return how many scores it computes, padding counted."""
        return self.q.numel() * self.k.shape[1]

    def seen(self, window: int | None) -> Tensor:
        """Return which keys a query sees (nb, qm, km): a prompt's and its own completion's, not later, within reach."""
        distance = self.q_position[:, :, None] - self.k_position[:, None]
        owner = self.k_owner[:, None]
        near = (distance >= 0) & ((owner == 0) | (owner == self.q_owner[:, :, None]))
        return near if window is None else near & (distance < window)

    def mask_(self, scores: Tensor, window: int | None) -> None:
        """Hide what a query does not see in scores (nb, KV, qm, G, km)."""
        key = window, scores.dtype
        if key not in self.bias:
            seen = self.seen(window)
            bias = torch.zeros(seen.shape, dtype=scores.dtype, device=scores.device)
            self.bias[key] = bias.masked_fill_(~seen, torch.finfo(scores.dtype).min)[:, None, :, None]
        scores.add_(self.bias[key])


class PackedLayout:
    """Which keys each of the N tokens of a micro-batch attends to."""

    def __init__(self, rows: Sequence[PackedRow], device: torch.device | str = "cpu") -> None:
        self.rows = tuple(rows)
        self.buckets: list[_Bucket] = []
        # of each token among the outputs of all buckets
        place = np.zeros(sum(row.prompt + sum(row.completions) for row in rows), dtype=np.int64)
        offset = 0
        for padded in padded_blocks(rows):
            asks = padded.q_position >= 0
            place[padded.q[asks]] = offset + np.flatnonzero(asks)
            offset += asks.size
            self.buckets.append(_Bucket.of(padded, device))
        self.place = torch.from_numpy(place).to(device)
        self.pairs = sum(bucket.pairs for bucket in self.buckets)

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int | None
    ) -> Tensor:
        """Return outputs (N, H, D) of queries (N, H, D), keys and values (N, KV, D)."""
        by_token = [x.contiguous() for x in (query, key, value)]
        outputs: Tensor = _BlockAttention.apply(*by_token, self, scaling, window)  # type: ignore[no-untyped-call]
        return outputs


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
    tokens = (x.transpose(1, 2).flatten(0, 1).to(value.dtype) for x in (query, key, value))
    found = layout.attend(module.layer_idx, *tokens, scale, sliding_window)
    return found.view(query.shape[0], query.shape[2], *found.shape[1:]), None


def _no_mask(*, attention_mask: Tensor | None = None, **others: Any) -> None:
    """Stand in for a mask, which would be N x N: the layout says who sees whom."""
    if attention_mask is not None:
        raise NotImplementedError("block attention takes no padding mask")


AttentionInterface.register(BLOCKS, _attend)
AttentionMaskInterface.register(BLOCKS, _no_mask)
