"""Sampling: each prompt prefilled once, its cache repeated n times, finished rows dropped as they end.

Every completion owns its random numbers, one a token, drawn from (seed, stream, prompt, sample): what is sampled does
not depend on which prompts share a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import Cache

from alignarena.core.contract import Sampling
from alignarena.core.seeds import generator
from alignarena.harness.backbone import Backbone
from alignarena.harness.kv_cache import roomy_cache
from alignarena.harness.tokens import Ids

_BLOCK = 256  # tokens of the vocabulary summed at once
_SHRINK_AT = 0.25  # share of finished rows at which the batch is cut down: each cut copies the cache


@dataclass(frozen=True)
class Sample:
    """One sampled completion: its ids, with EOS where it ended by itself, and their log-probs in nats at T = 1."""

    completion: Ids
    logps: tuple[float, ...]


def uniforms(seed: int, stream: str, prompt_id: str, n: int, length: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the random numbers (n, length) of a prompt's completions."""
    return np.stack([generator(seed, "sample", stream, prompt_id, i).random(length) for i in range(n)])


@torch.no_grad()
def sample(
    backbone: Backbone,
    adapter: str,
    prompts: Sequence[Ids],
    draws: Sequence[np.ndarray[Any, np.dtype[np.float64]]],
    sampling: Sampling,
    done: Callable[[int, int], None] = lambda prompts, tokens: None,
) -> list[list[Sample]]:
    """Sample completions of prompts.

    Args:
        backbone: The model.
        adapter: Which of its adapters is the policy.
        prompts: Token ids of each prompt.
        draws: For each prompt, random numbers (n, max_new_tokens).
        sampling: Temperature and nucleus; its length limit is the width of ``draws``.
        done: Called with the prompts and tokens of each finished batch.

    Returns:
        For each prompt, its n samples.
    """
    found: list[list[Sample]] = [[] for _ in prompts]
    backbone.switch(adapter)
    for batch in _batches(backbone, prompts, draws):
        samples = _sample_batch(backbone, [prompts[i] for i in batch], [draws[i] for i in batch], sampling)
        for i, samples_of in zip(batch, samples, strict=True):
            found[i] = samples_of
        done(len(batch), sum(len(s.completion) for group in samples for s in group))
    return found


def _batches(backbone: Backbone, prompts: Sequence[Ids], draws: Sequence[Any]) -> list[list[int]]:
    """Cut prompts, longest first, into batches whose cache stays within eight training batches of tokens."""
    limit = 8 * backbone.config.tokens_per_batch
    batches: list[list[int]] = []
    used = limit
    for i in sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i)):
        n, length = draws[i].shape
        cost = n * (len(prompts[i]) + length)
        if used + cost > limit:
            batches.append([])
            used = 0
        batches[-1].append(i)
        used += cost
    return batches


def _sample_batch(
    backbone: Backbone, prompts: Sequence[Ids], draws: Sequence[Any], sampling: Sampling
) -> list[list[Sample]]:
    device, n = backbone.accelerator.device, [len(d) for d in draws]
    repeats = torch.tensor(n, device=device)
    cache = roomy_cache()
    mask = _left_padded(prompts).to(device)
    ids = torch.zeros_like(mask)
    for row, prompt in enumerate(prompts):
        ids[row, mask.shape[1] - len(prompt) :] = torch.tensor(prompt, device=device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    logits = _step(backbone, ids, mask, positions, cache)
    if len(set(n)) == 1:
        cache.batch_repeat_interleave(n[0])
    else:
        cache.batch_select_indices(torch.repeat_interleave(torch.arange(len(n), device=device), repeats))
    logits, mask = logits.repeat_interleave(repeats, 0), mask.repeat_interleave(repeats, 0)
    position = positions[:, -1:].repeat_interleave(repeats, 0)
    numbers = torch.tensor(np.concatenate(draws), dtype=torch.float64, device=device)

    completions: list[list[int]] = [[] for _ in range(len(numbers))]
    logps: list[list[float]] = [[] for _ in range(len(numbers))]
    alive = torch.arange(len(numbers), device=device)  # which completion each row of the batch is
    running = torch.ones(len(numbers), dtype=torch.bool, device=device)
    for t in range(numbers.shape[1]):
        token, logp = choose(logits, numbers[alive, t], sampling)
        for row, completion in enumerate(alive.tolist()):
            if running[row]:
                completions[completion].append(int(token[row]))
                logps[completion].append(float(logp[row]))
        running &= token != backbone.tokens.eos_id
        left = int(running.sum())
        if left == 0 or t == numbers.shape[1] - 1:
            break
        if left <= (1 - _SHRINK_AT) * len(running):
            keep = running.nonzero()[:, 0]
            cache.batch_select_indices(keep)
            alive, running, token = alive[keep], running[keep], token[keep]
            mask, position = mask[keep], position[keep]
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        position = position + 1
        logits = _step(backbone, token[:, None], mask, position, cache)
    flat = iter(Sample(tuple(c), tuple(p)) for c, p in zip(completions, logps, strict=True))
    return [[next(flat) for _ in range(count)] for count in n]


def _step(backbone: Backbone, ids: Tensor, mask: Tensor, positions: Tensor, cache: Cache) -> Tensor:
    """Return logits (B, V) after the last position, extending the cache."""
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions, "past_key_values": cache}
    with backbone.autocast():
        if not backbone.plain_head:
            return backbone.causal_lm(**inputs, use_cache=True, logits_to_keep=1).logits[:, -1].float()  # type: ignore[no-any-return]
        hidden = backbone.decoder(**inputs, use_cache=True).last_hidden_state[:, -1]
        # cut to (B, D) first: on a strided (B, 1, D) torch copies the head once a row, gigabytes of it
        return backbone.head(hidden.contiguous()).float()  # type: ignore[no-any-return]


def choose(logits: Tensor, numbers: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Draw one token a row by inverting the cumulative distribution at one uniform number.

    Args:
        logits: (B, V), fp32.
        numbers: (B,) in [0, 1).
        sampling: Temperature 0 is greedy; ``top_p`` keeps the smallest set of tokens with that mass.

    Returns:
        Tokens (B,) and their log-probs (B,) in nats under the untempered distribution.
    """
    norm = logits.logsumexp(1)
    if sampling.temperature == 0:
        token = logits.argmax(1)
    else:
        scaled = logits if sampling.temperature == 1 else logits / sampling.temperature
        top = norm if sampling.temperature == 1 else scaled.logsumexp(1)
        probs = (scaled - top[:, None]).exp_()
        token = _invert(_nucleus(probs, sampling.top_p) if sampling.top_p < 1 else probs, numbers)
    return token, logits.gather(1, token[:, None])[:, 0] - norm


def _invert(probs: Tensor, numbers: Tensor) -> Tensor:
    """Return where the cumulative distribution passes each number: first its block, then its place in the block.

    Summing blocks is several times faster than a cumulative sum over the vocabulary.
    """
    rows, width = torch.arange(len(probs), device=probs.device), _BLOCK
    blocks = torch.nn.functional.pad(probs, (0, -probs.shape[1] % width)).view(len(probs), -1, width)
    upto = blocks.sum(2).double().cumsum(1)
    goal = numbers * upto[:, -1]
    block = torch.searchsorted(upto, goal[:, None], right=True)[:, 0].clamp(max=upto.shape[1] - 1)
    before = torch.where(block > 0, upto[rows, (block - 1).clamp(min=0)], 0.0)
    within = blocks[rows, block].double().cumsum(1)
    place = torch.searchsorted(within, (goal - before)[:, None], right=True)[:, 0]
    possible = torch.arange(width, device=probs.device) * (blocks[rows, block] > 0)
    return block * width + torch.minimum(place, possible.amax(1))  # rounding never lands on a token of probability 0


def _nucleus(probs: Tensor, top_p: float) -> Tensor:
    """Zero all but the most probable tokens that together reach ``top_p``."""
    ordered, index = probs.sort(1, descending=True)
    outside = ordered.cumsum(1) - ordered >= top_p
    return torch.zeros_like(probs).scatter(1, index, ordered.masked_fill(outside, 0.0))


def _left_padded(prompts: Sequence[Ids]) -> Tensor:
    width = max(len(prompt) for prompt in prompts)
    return torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])


def sampled_row(row: Mapping[str, Any], prompt: Ids, index: int, drawn: Sample, backbone: Backbone) -> dict[str, Any]:
    """Return the sampled row of a prompt row: its columns, and what was drawn."""
    return {
        **{key: value for key, value in row.items() if key not in ("completion", "logps", "score")},
        "sample": index,
        "completion": backbone.tokens.text(drawn.completion),
        "prompt_ids": list(prompt),
        "completion_ids": list(drawn.completion),
        "finish_reason": "stop" if backbone.tokens.finished(drawn.completion) else "length",
        "logps": list(drawn.logps),
    }
