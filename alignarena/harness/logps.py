"""Log-probs of realised tokens without keeping tokens x vocabulary: the head runs in chunks, in fp32 statistics.

With a frozen head the gradient of a token's log-prob with respect to its hidden state is known in the forward pass:
``(e_y - softmax(W h)) W``. So the forward keeps one vector a token and the backward is one multiplication.

A chunk's logits are one product, in the precision of the head: few tokens at once cost reading the whole vocabulary for
little work (128 tokens 15 ms, 512 tokens 28 ms). On CPU the softmax then goes over them by a few rows, which stay in
the cache through all its passes: half the time of the whole chunk at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

CHUNK = 512  # tokens a chunk at least: 50 MB of bf16 logits at a vocabulary of 50,000
_LOGITS = 2**24  # of a small vocabulary more tokens: so many logits
_IN_CACHE = 2**18  # fp32 log-probs held at once on CPU: 1 MiB, of the second-level cache of a core


class _FrozenHeadLogps(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor) -> Tensor:
        logps = torch.empty(len(target), dtype=torch.float32, device=hidden.device)
        wants_grad = ctx.needs_input_grad[0]
        slopes = torch.empty_like(hidden) if wants_grad else None
        for part in _chunks(target, max(CHUNK, _LOGITS // len(weight))):
            logits = torch.nn.functional.linear(hidden[part], weight, bias)
            logps[part] = _chosen(logits, target[part], to_slopes=wants_grad)
            if slopes is not None:
                slopes[part] = logits @ weight
        ctx.save_for_backward(slopes)
        return logps

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, None, None]:
        (slopes,) = ctx.saved_tensors
        return (slopes * grads[0][:, None].to(slopes.dtype) if slopes is not None else None), None, None, None


class _TrainedHeadLogps(torch.autograd.Function):
    """The head learns too: its gradient needs the loss's, so the backward pass computes the probabilities again."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor) -> Tensor:
        logps = torch.empty(len(target), dtype=torch.float32, device=hidden.device)
        head = weight.to(hidden.dtype), None if bias is None else bias.to(hidden.dtype)
        for part in _chunks(target, max(CHUNK, _LOGITS // len(weight))):
            logps[part] = _chosen(torch.nn.functional.linear(hidden[part], *head), target[part], to_slopes=False)
        ctx.save_for_backward(hidden, weight, bias, target)
        return logps

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, target = ctx.saved_tensors
        head = weight.to(hidden.dtype), None if bias is None else bias.to(hidden.dtype)
        slope_hidden, slope_weight = torch.empty_like(hidden), torch.zeros_like(weight)
        slope_bias = None if bias is None else torch.zeros_like(bias)
        for part in _chunks(target, max(CHUNK, _LOGITS // len(weight))):
            above = torch.nn.functional.linear(hidden[part], *head)
            _chosen(above, target[part], to_slopes=True)
            above.mul_(grads[0][part, None])
            slope_hidden[part] = above @ head[0]
            slope_weight += above.t() @ hidden[part]
            if slope_bias is not None:
                slope_bias += above.sum(0)
        return slope_hidden, slope_weight, slope_bias, None


def _chosen(logits: Tensor, target: Tensor, to_slopes: bool) -> Tensor:
    """Return log p(target) of logits (N, V), fp32; if asked, its slopes ``e_y - p`` take the place of the logits."""
    found = torch.empty(len(target), dtype=torch.float32, device=logits.device)
    few = max(1, _IN_CACHE // logits.shape[1]) if logits.device.type == "cpu" else len(target)
    for part in _chunks(target, few):
        logps = torch.log_softmax(logits[part], 1, dtype=torch.float32)
        found[part] = logps.gather(1, target[part, None])[:, 0]
        if to_slopes:
            slopes = logps.exp_().neg_()
            logits[part] = slopes.scatter_add_(1, target[part, None], torch.ones_like(slopes[:, :1]))
    return found


def _chunks(target: Tensor, size: int) -> Iterator[slice]:
    for start in range(0, len(target), size):
        yield slice(start, start + size)


def token_logps(hidden: Tensor, head: torch.nn.Linear, target: Tensor) -> Tensor:
    """Return log p(target) in nats, fp32.

    Args:
        hidden: (N, D) hidden states that predict the targets, in the precision to compute in.
        head: The output embedding, a linear layer (V, D), frozen or not.
        target: (N,) token ids.
    """
    bias = getattr(head, "bias", None)
    kind = _TrainedHeadLogps if head.weight.requires_grad else _FrozenHeadLogps
    result: Tensor = kind.apply(hidden, head.weight, bias, target)  # type: ignore[no-untyped-call]
    return result


def logits_logps(logits: Tensor, target: Tensor) -> Tensor:
    """Return log p(target) in nats from logits (N, V): for models whose head is more than a linear layer."""
    return torch.log_softmax(logits.float(), -1).gather(1, target[:, None])[:, 0]
