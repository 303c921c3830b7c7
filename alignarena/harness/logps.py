"""Log-probs of realised tokens without keeping tokens x vocabulary: the head runs in chunks, in fp32 statistics.

With a frozen head the gradient of a token's log-prob with respect to its hidden state is known in the forward pass:
``W[y] - softmax(W h) W``. So the forward keeps one vector a token and the backward is one multiplication.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNK = 512  # tokens a chunk: 100 MiB of fp32 logits at a vocabulary of 50,000


class _FrozenHeadLogps(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor) -> Tensor:
        logps = torch.empty(len(target), dtype=torch.float32, device=hidden.device)
        wants_grad = ctx.needs_input_grad[0]
        slopes = torch.empty_like(hidden) if wants_grad else None
        for start in range(0, len(target), CHUNK):
            part = slice(start, start + CHUNK)
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


def token_logps(hidden: Tensor, head: torch.nn.Linear, target: Tensor) -> Tensor:
    """Return log p(target) in nats, fp32.

    Args:
        hidden: (N, D) hidden states that predict the targets.
        head: The frozen output embedding, a linear layer (V, D).
        target: (N,) token ids.
    """
    bias = getattr(head, "bias", None)
    result: Tensor = _FrozenHeadLogps.apply(hidden.to(head.weight.dtype), head.weight, bias, target)  # type: ignore[no-untyped-call]
    return result


def logits_logps(logits: Tensor, target: Tensor) -> Tensor:
    """Return log p(target) in nats from logits (N, V): for models whose head is more than a linear layer."""
    return torch.log_softmax(logits.float(), -1).gather(1, target[:, None])[:, 0]
