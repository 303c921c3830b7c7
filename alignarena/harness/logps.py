"""Log-probs of realised tokens without keeping tokens x vocabulary: the head runs in chunks, in fp32 statistics.

With a frozen head the gradient of a token's log-prob with respect to its hidden state is known in the forward pass:
``W[y] - softmax(W h) W``. So the forward keeps one vector a token and the backward is one multiplication.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

CHUNK = 128  # tokens a chunk: 25 MiB of fp32 logits at a vocabulary of 50,000, which stay near the cores


class _FrozenHeadLogps(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor) -> Tensor:
        logps = torch.empty(len(target), dtype=torch.float32, device=hidden.device)
        wants_grad = ctx.needs_input_grad[0]
        slopes = torch.empty_like(hidden) if wants_grad else None
        for part in _chunks(target):
            probs = torch.nn.functional.linear(hidden[part], weight, bias).float()
            chosen = probs.gather(1, target[part, None])
            norm = probs.logsumexp(1, keepdim=True)
            logps[part] = (chosen - norm)[:, 0]
            if slopes is not None:
                probs.sub_(norm).exp_()
                slopes[part] = weight[target[part]] - probs.to(weight.dtype) @ weight
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
        for part in _chunks(target):
            logits = torch.nn.functional.linear(hidden[part], *head).float()
            logps[part] = logits.gather(1, target[part, None])[:, 0] - logits.logsumexp(1)
        ctx.save_for_backward(hidden, weight, bias, target)
        return logps

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, target = ctx.saved_tensors
        head = weight.to(hidden.dtype), None if bias is None else bias.to(hidden.dtype)
        slope_hidden, slope_weight = torch.empty_like(hidden), torch.zeros_like(weight)
        slope_bias = None if bias is None else torch.zeros_like(bias)
        for whole in _chunks(target, 4 * CHUNK):  # the weight's gradient is V x D: added up few times
            above = torch.empty(len(target[whole]), len(weight), dtype=hidden.dtype, device=hidden.device)
            for part in _chunks(target[whole]):
                probs = torch.nn.functional.linear(hidden[whole][part], *head).float().softmax(1)
                probs.scatter_add_(1, target[whole][part, None], probs.new_full((len(probs), 1), -1.0))
                above[part] = probs.mul_(-grads[0][whole][part, None])
            slope_hidden[whole] = above @ head[0]
            slope_weight += above.t() @ hidden[whole]
            if slope_bias is not None:
                slope_bias += above.sum(0)
        return slope_hidden, slope_weight, slope_bias, None


def _chunks(target: Tensor, size: int = CHUNK) -> Iterator[slice]:
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
