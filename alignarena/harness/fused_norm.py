"""RMSNorm on CPU by torch's kernels for other norms, which pass over a row once, and its gradient.

transformers' own forward is seven operations, each over the whole micro-batch in fp32, and twice as many backward. This
is one function that keeps the input and a number a row, in a third of the time (docs/performance.md). A module is given
it only if it computes the same: by what it does, not by its name.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


def fuse_norms(model: nn.Module) -> None:
    """Let every RMSNorm of a model on CPU compute this way."""
    for module in model.modules():
        if _is_rms_norm(module):
            module.forward = partial(_forward, module)


@torch.no_grad()
def _is_rms_norm(module: nn.Module) -> bool:
    """Compare a module with one weight and an epsilon with what this file computes."""
    weight = getattr(module, "weight", None)
    if not (hasattr(module, "variance_epsilon") and isinstance(weight, nn.Parameter) and weight.device.type == "cpu"):
        return False
    x = torch.linspace(-2, 3, 4 * len(weight), dtype=weight.dtype).view(1, 4, -1)
    own, found = module(x), _forward(module, x)
    return own.dtype == found.dtype and torch.allclose(own, found, rtol=2e-2 if own.dtype == torch.bfloat16 else 1e-5)


def _forward(module: Any, x: Tensor) -> Tensor:
    weight: Tensor = module.weight
    if x.shape[-2] == 1:  # a step of decoding: few rows, no gradient, so that the module's own is as fast
        return type(module).forward(module, x)  # type: ignore[no-any-return]
    result: Tensor = _RMSNorm.apply(x, weight, module.variance_epsilon)  # type: ignore[no-untyped-call]
    return result


class _RMSNorm(torch.autograd.Function):
    """x (..., D) and weight (D,)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        square = torch.linalg.vector_norm(flat, dim=1, dtype=torch.float32).square_().div_(flat.shape[1])
        # rows as the channels of a batch norm at rest: each less 0, over the root of its own mean square
        normed = nn.functional.batch_norm(flat[None], torch.zeros_like(square), square, eps=epsilon)[0]
        ctx.save_for_backward(flat, weight, square.add_(epsilon).rsqrt_()[:, None])
        return (normed * weight).view(x.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        flat, weight, inverse = ctx.saved_tensors
        above = grads[0].reshape(flat.shape)
        of_x, of_weight = ctx.needs_input_grad[:2]
        if of_weight:  # a sum over all rows
            above = above.float()
        slope, slope_weight, _ = torch.ops.aten.native_layer_norm_backward(
            above, flat.to(above.dtype), flat.shape[1:], torch.zeros_like(inverse), inverse, weight.float(), None,
            [of_x, of_weight, False],
        )  # fmt: skip
        if of_x:  # what a layer norm's gradient lacks, for there a shift of the row changes nothing
            shift = (above @ weight.to(above.dtype)[:, None]).mul_(inverse).div_(flat.shape[1])
            slope = slope.add_(shift).to(flat.dtype).view(grads[0].shape)
        return slope, slope_weight.to(weight.dtype) if of_weight else None, None
