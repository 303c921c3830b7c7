"""Attention layers of packed rows and rollouts, token by token: nothing is turned to heads and back.

transformers' own forward turns queries, keys and values to heads before it rotates them, in five operations that pass
over all of them and twice as many backward; attention by layouts turns them back. Here they stay as the projections
leave them, and a rotation is three operations either way. A module is given this only if it computes the same: by what
it does, not by its name.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from alignarena.harness.attention import PackedLayout
from alignarena.harness.blocks import PackedRow

_PARTS = ("q_proj", "k_proj", "v_proj", "head_dim", "layer_idx")
_REFUSED = (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError)


class _How(NamedTuple):
    scaling: float
    window: int | None


def _output(module: Any) -> Any:
    """Return a layer's projection of its outputs, by either of its names; None where it has neither."""
    return getattr(module, "o_proj", None) or getattr(module, "dense", None)


def fuse_attention(model: nn.Module) -> None:
    """Let every attention layer of a model that attends by layouts compute this way."""
    for module in model.modules():
        complete = all(hasattr(module, part) for part in _PARTS) and _output(module) is not None
        if complete and (how := _learnt(module)) is not None:
            module.forward = partial(_forward, module, how)


class _Spy(PackedLayout):
    """One packed row, which notes how a layer's own forward scales scores and how far it looks back."""

    how: _How | None = None

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int | None
    ) -> Tensor:
        """Attend as packed rows do."""
        self.how = _How(scaling, window)
        return super().attend(layer, query, key, value, scaling, window)


@torch.no_grad()
def _learnt(module: Any) -> _How | None:
    """Compare a layer with what this file computes; return how it attends, None where the two differ."""
    weight = _output(module).weight
    noise, row = torch.Generator().manual_seed(0), PackedRow(0, 4, (3, 2))
    tokens = row.prompt + sum(row.completions)
    hidden = torch.randn(1, tokens, weight.shape[0], generator=noise).to(weight)
    width = getattr(module, "rotary_ndims", module.head_dim)  # of a head, what is rotated
    angles = torch.rand(1, tokens, width // 2, generator=noise).mul_(6).repeat(1, 1, 2)
    turn, spy = (angles.cos().to(weight), angles.sin().to(weight)), _Spy([row], weight.device)
    try:
        own = module(hidden, position_embeddings=turn, attention_mask=None, layout=spy)[0]
        found = _forward(module, spy.how, hidden, turn, layout=spy)[0] if spy.how is not None else None
    except _REFUSED:
        return None
    near = 2e-2 if weight.dtype == torch.bfloat16 else 1e-5
    same = found is not None and torch.allclose(own, found, rtol=near, atol=near * float(own.abs().max()))
    return spy.how if same else None


def _forward(
    module: Any, how: _How, hidden_states: Tensor, position_embeddings: tuple[Tensor, Tensor] | None = None,
    attention_mask: Tensor | None = None, *, layout: Any = None, **others: Any,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    if layout is None or position_embeddings is None:  # a plain sequence, or a cache of transformers' own
        own: tuple[Tensor, Tensor | None] = type(module).forward(
            module, hidden_states, position_embeddings=position_embeddings, attention_mask=attention_mask, **others
        )
        return own
    tokens = hidden_states.flatten(0, 1)
    cos, sin = (x.flatten(0, 1)[:, None] for x in position_embeddings)
    if cos.shape[-1] < module.head_dim:  # the rest of a head is not turned
        cos = torch.nn.functional.pad(cos, (0, module.head_dim - cos.shape[-1]), value=1.0)
    query, key, value = (
        project(tokens).view(len(tokens), -1, module.head_dim)
        for project in (module.q_proj, module.k_proj, module.v_proj)
    )
    query, key = (_Rotated.apply(x, cos, sin).to(value.dtype) for x in (query, key))  # type: ignore[no-untyped-call]
    outputs = layout.attend(module.layer_idx, query, key, value, *how)
    return _output(module)(outputs.view(*hidden_states.shape[:-1], -1)), None


class _Rotated(torch.autograd.Function):
    """x (N, H, D) turned by angles: cosines (N, 1, D) and sines (N, 1, R), R being D unless a part of a head is turned.

    The first half of those R is turned with the second (Su et al., 2021; arXiv:2104.09864, equation 34).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        first, second = _halves(sin)
        y = x * cos
        y[..., first].addcmul_(x[..., second], sin[..., first], value=-1)
        y[..., second].addcmul_(x[..., first], sin[..., second])
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (above,), (cos, sin) = grads, ctx.saved_tensors
        first, second = _halves(sin)
        slope = above * cos
        slope[..., first].addcmul_(above[..., second], sin[..., second])
        slope[..., second].addcmul_(above[..., first], sin[..., first], value=-1)
        return slope, None, None


def _halves(sin: Tensor) -> tuple[slice, slice]:
    half = sin.shape[-1] // 2
    return slice(half), slice(half, 2 * half)
