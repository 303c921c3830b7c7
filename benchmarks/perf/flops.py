"""Floating-point operations of a model on some comparisons, and the rate of the best matrix product here.

A product of (m, k) by (k, n) is 2 m k n operations. With T tokens, C completion tokens, S pairs of tokens that see each
other, a width D of all heads together, L layers, a vocabulary V and N weights in the layers' matrices:

* a forward pass is ``2 N T + 4 L D S + 2 V D_model C``: layers, attention (scores and values), output head;
* a backward pass is twice that; under LoRA the gradients of frozen matrices are not wanted, so layers and head count
  once and attention twice;
* an adapter of A weights adds ``2 A T`` forward and ``4 A T`` backward.

Each token of the data counts once, and so does each prompt; recomputation does not count.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from alignarena.benchmarks.perf.work import Comparison


@dataclass(frozen=True)
class ModelShape:
    """What the operations of a decoder depend on."""

    matrices: int  # weights of the layers' matrices
    head: int  # V x D_model
    layers: int
    attention_width: int  # D: heads times their size

    @classmethod
    def of(cls, model: Any) -> ModelShape:
        """Read the shape of a causal language model without adapters."""
        config, head = model.config, model.get_output_embeddings().weight
        embeddings = {id(head), id(model.get_input_embeddings().weight)}
        matrices = sum(p.numel() for p in model.parameters() if p.dim() == 2 and id(p) not in embeddings)
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return cls(matrices, head.numel(), config.num_hidden_layers, config.num_attention_heads * size)

    def products(self, comparisons: Sequence[Comparison]) -> float:
        """Return the operations of the layers' matrices and the head in one forward pass."""
        tokens = sum(one.tokens for one in comparisons)
        completions = sum(len(ids) for one in comparisons for ids in one.completions)
        return 2.0 * self.matrices * tokens + 2.0 * self.head * completions

    def attention(self, comparisons: Sequence[Comparison]) -> float:
        """Return the operations of attention in one forward pass."""
        return 4.0 * self.layers * self.attention_width * sum(map(_seen, comparisons))


def dpo_step(shape: ModelShape, comparisons: Sequence[Comparison], adapter: int = 0) -> float:
    """Return the operations of a DPO step: the reference model's forward, the policy's forward and backward.

    Args:
        shape: Of the model.
        comparisons: The pairs of the step.
        adapter: Weights of a LoRA adapter; 0 is full fine-tuning.
    """
    products, attention = shape.products(comparisons), shape.attention(comparisons)
    own = 6.0 * adapter * sum(one.tokens for one in comparisons)
    return (3.0 if adapter else 4.0) * products + 4.0 * attention + own


def _seen(one: Comparison) -> int:
    """Return the pairs of tokens of which the later sees the earlier or is it."""
    p = len(one.prompt)
    return p * (p + 1) // 2 + sum(len(ids) * p + len(ids) * (len(ids) + 1) // 2 for ids in one.completions)


def product_rate(side: int, dtype: torch.dtype, repeats: int = 5) -> float:
    """Return the best rate, operations a second, of square matrix products of this side and of twice it."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return max(_rate(size, dtype, device, repeats) for size in (side, 2 * side))


def _rate(side: int, dtype: torch.dtype, device: str, repeats: int) -> float:
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        left @ right
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return 2.0 * side**3 / min(seconds[1:])


def utilisation(operations: Sequence[float], seconds: Sequence[float], rate: float) -> tuple[float, float, float]:
    """Return median, least and greatest share of a rate that repeats achieved."""
    shares = [one / taken / rate for one, taken in zip(operations, seconds, strict=True)]
    return statistics.median(shares), min(shares), max(shares)
