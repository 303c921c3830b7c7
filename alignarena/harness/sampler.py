"""Sampling: each prompt prefilled once for all its completions, finished rows dropped as they end.

Every completion owns its random numbers, one a token, drawn from (seed, stream, prompt, sample): what is sampled does
not depend on which prompts share a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alignarena.core.contract import Sampling
from alignarena.core.seeds import generator
from alignarena.harness.backbone import Backbone
from alignarena.harness.device import with_float64
from alignarena.harness.rollout import start
from alignarena.harness.tokens import Ids

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
    for batch in _batches(backbone, prompts, draws):
        # one autocast around all steps: weights in training are cast once
        with backbone.sampling(adapter):
            samples = _sample_batch(backbone, adapter, [prompts[i] for i in batch], [draws[i] for i in batch], sampling)
        for i, samples_of in zip(batch, samples, strict=True):
            found[i] = samples_of
        done(len(batch), sum(len(s.completion) for group in samples for s in group))
    return found


def _batches(backbone: Backbone, prompts: Sequence[Ids], draws: Sequence[Any]) -> list[list[int]]:
    """Cut prompts, longest first, into batches whose cache stays within sixteen training batches of tokens."""
    limit = 16 * backbone.config.tokens_per_batch
    batches: list[list[int]] = []
    used = limit
    for i in sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i)):
        n, length = draws[i].shape
        cost = len(prompts[i]) + n * length
        if used + cost > limit:
            batches.append([])
            used = 0
        batches[-1].append(i)
        used += cost
    return batches


def _sample_batch(
    backbone: Backbone, adapter: str, prompts: Sequence[Ids], draws: Sequence[Any], sampling: Sampling
) -> list[list[Sample]]:
    device = backbone.accelerator.device
    repeats = torch.tensor([len(d) for d in draws], device=device)
    numbers = torch.tensor(np.concatenate(draws), dtype=torch.float64, device=with_float64(device))
    tokens = torch.full(numbers.shape, -1, device=device)
    logps = torch.zeros(numbers.shape, device=device)
    rollout = start(backbone, adapter, prompts, repeats)
    alive = torch.arange(len(numbers), device=device)  # which completion each row of the batch is
    running = torch.ones(len(numbers), dtype=torch.bool, device=device)
    for t in range(numbers.shape[1]):
        token, logp = rollout.choose(numbers[alive.to(numbers.device), t], sampling)
        tokens[alive, t], logps[alive, t] = token, logp
        running &= token != backbone.tokens.eos_id
        left = int(running.sum())
        if left == 0 or t == numbers.shape[1] - 1:
            break
        if left <= (1 - _SHRINK_AT) * len(running):
            keep = _closed_up(running)
            rollout.keep(keep)
            alive, running, token = alive[keep], running[keep], token[keep]
        rollout.extend(token)
    flat = iter(_cut(tokens.tolist(), logps.tolist(), backbone.tokens.eos_id))
    return [[next(flat) for _ in range(count)] for count in repeats.tolist()]


def _closed_up(running: Tensor) -> Tensor:
    """Return which rows go on (left,), the hindmost in the places of those in front that do not: few have to move."""
    kept = running.nonzero()[:, 0]
    places = torch.arange(len(kept), device=running.device)
    places[~running[: len(kept)]] = kept[kept >= len(kept)]
    return places


def _cut(tokens: list[list[int]], logps: list[list[float]], eos_id: int) -> Iterator[Sample]:
    """Yield completions up to their first EOS: what a row drew after it means nothing."""
    for ids, of_ids in zip(tokens, logps, strict=True):
        length = ids.index(eos_id) + 1 if eos_id in ids else len(ids)
        yield Sample(tuple(ids[:length]), tuple(of_ids[:length]))


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
