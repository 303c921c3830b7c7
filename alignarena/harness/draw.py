"""Drawing tokens: the inverse of the cumulative distribution at one uniform number a row."""

from __future__ import annotations

import torch
from torch import Tensor

from alignarena.core.contract import Sampling

_BLOCK = 256  # tokens of the vocabulary summed at once


def choose(logits: Tensor, numbers: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Draw one token a row by inverting the cumulative distribution at one uniform number.

    Args:
        logits: (B, V), fp32; overwritten.
        numbers: (B,) in [0, 1), fp64; the draw is made on their device, where there is fp64.
        sampling: Temperature 0 is greedy; ``top_k`` keeps the k most probable tokens, ``top_p`` then the smallest set
            with that mass.

    Returns:
        Tokens (B,) and their log-probs (B,) in nats under the untempered distribution, on the device of the logits.
    """
    token, logps = _choose(logits.to(numbers.device), numbers, sampling)
    return token.to(logits.device), logps.to(logits.device)


def _choose(logits: Tensor, numbers: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    if sampling.temperature == 1 and sampling.top_k == 0 and sampling.top_p == 1:
        return _draw(logits, numbers)
    norm = logits.logsumexp(1)
    if sampling.temperature == 0:
        token = logits.argmax(1)
    else:
        scaled = logits / sampling.temperature
        if 0 < sampling.top_k < scaled.shape[1]:
            scaled.masked_fill_(scaled < scaled.topk(sampling.top_k).values[:, -1:], -torch.inf)
        probs = scaled.softmax(1)
        token = _invert(_nucleus(probs, sampling.top_p) if sampling.top_p < 1 else probs, numbers)[0]
    return token, logits.gather(1, token[:, None])[:, 0] - norm


def _draw(logits: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Draw from the distribution itself: one pass for the exponentials, whose sums give the norm as well."""
    weights = logits.sub_(logits.amax(1, keepdim=True)).exp_()
    token, total = _invert(weights, numbers)
    return token, (weights.gather(1, token[:, None])[:, 0].double() / total).log().float()


def _invert(weights: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Return where the cumulative distribution passes each number, and the sum of the weights.

    First its block, then its place in the block: summing blocks is several times faster than a cumulative sum over the
    vocabulary.
    """
    rows, width = torch.arange(len(weights), device=weights.device), _BLOCK
    spare = -weights.shape[1] % width
    padded = torch.nn.functional.pad(weights, (0, spare)) if spare else weights
    blocks = padded.view(len(weights), -1, width)
    upto = blocks.sum(2).double().cumsum(1)
    goal = numbers * upto[:, -1]
    block = torch.searchsorted(upto, goal[:, None], right=True)[:, 0].clamp(max=upto.shape[1] - 1)
    before = torch.where(block > 0, upto[rows, (block - 1).clamp(min=0)], 0.0)
    within = blocks[rows, block].double().cumsum(1)
    place = torch.searchsorted(within, (goal - before)[:, None], right=True)[:, 0]
    possible = torch.arange(width, device=weights.device) * (blocks[rows, block] > 0)
    # rounding never lands on a token of probability 0
    return block * width + torch.minimum(place, possible.amax(1)), upto[:, -1]


def _nucleus(probs: Tensor, top_p: float) -> Tensor:
    """Zero all but the most probable tokens that together reach ``top_p``."""
    ordered, index = probs.sort(1, descending=True)
    outside = ordered.cumsum(1) - ordered >= top_p
    return torch.zeros_like(probs).scatter(1, index, ordered.masked_fill(outside, 0.0))
