"""LoRA's linear layers in few operations: ``y = x W' + (x A') (s B)'``, the sum made inside the product.

peft's own forward takes about ten small operations a layer, 210 layers in a model of 30 blocks; this takes five, and
keeps nothing of the sum for the backward pass. Adapters, their names and their files stay peft's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn

from alignarena.harness.packed_weights import PackedWeights

Cast = tuple[Tensor, Tensor]  # A and s B in the precision to compute in


class Casts:
    """Weights of the layers in the precision to compute in: adapters while nothing is trained, the base for good."""

    def __init__(self) -> None:
        self.base = PackedWeights()
        self._kept: dict[tuple[int, str], Cast] | None = None

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Cast each layer once in here. Outside nothing is kept: a fused optimiser leaves no sign that it wrote."""
        self.base.begin()
        self._kept = {}
        try:
            yield
        finally:
            self._kept = None

    def of(self, layer: Any, name: str, dtype: torch.dtype) -> Cast:
        """Return what an adapter of a layer multiplies by."""
        key = id(layer), name
        if self._kept is not None and key in self._kept:
            return self._kept[key]
        with torch.no_grad():
            made = layer.lora_A[name].weight.to(dtype), (layer.lora_B[name].weight * layer.scaling[name]).to(dtype)
        if self._kept is not None:
            self._kept[key] = made
        return made


def fuse(model: nn.Module) -> Casts:
    """Let every plain LoRA layer of a model compute this way."""
    casts = Casts()
    for module in model.modules():
        if type(module) is Linear and type(module.base_layer) is nn.Linear:
            module.forward = partial(_forward, module, casts)
    return casts


def _forward(layer: Any, casts: Casts, x: Tensor) -> Tensor:
    (name,) = layer.active_adapters
    base, x = layer.base_layer, x.to(layer.base_layer.weight.dtype)
    if layer.disable_adapters or name not in layer.lora_A:
        return casts.base.product(x.flatten(0, -2), base).view(*x.shape[:-1], -1)
    a, b = casts.of(layer, name, x.dtype)
    if not torch.is_grad_enabled():
        return _sum(x.flatten(0, -2), base, casts.base, a, b)[0].view(*x.shape[:-1], -1)
    down, up = layer.lora_A[name].weight, layer.lora_B[name].weight
    result: Tensor = _LoraLinear.apply(  # type: ignore[no-untyped-call]
        x, base, casts.base, down, up, layer.scaling[name], a, b
    )
    return result


def _sum(flat: Tensor, base: nn.Linear, products: PackedWeights, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    inner = flat @ a.t()
    return products.product(flat, base).addmm_(inner, b.t()), inner


class _LoraLinear(torch.autograd.Function):
    """x (..., I), frozen base (O, I), down (r, I) and up (O, r)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, base: nn.Linear, products: PackedWeights, down: Tensor, up: Tensor, scaling: float,
        a: Tensor, b: Tensor,
    ) -> Tensor:  # fmt: skip
        flat = x.flatten(0, -2)
        y, inner = _sum(flat, base, products, a, b)
        ctx.save_for_backward(flat, base.weight, a, b, inner)
        ctx.scaling, ctx.shape = scaling, x.shape
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        flat, weight, a, b, inner = ctx.saved_tensors
        above = grads[0].flatten(0, -2)
        through = above @ b  # (N, r)
        slope_x = (above @ weight).addmm_(through, a).view(ctx.shape) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[3]:
            return slope_x, None, None, None, None, None, None, None
        slope_up = (above.t() @ inner).float().mul_(ctx.scaling)
        return slope_x, None, None, (through.t() @ flat).float(), slope_up, None, None, None
