"""Passes without gradients: log-probs, scores or values of sequences, each computed once, over all processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Literal

import torch
from accelerate.utils import gather_object
from safetensors.torch import load_file, save_file
from torch import Tensor

from alignarena.core.digest import digest
from alignarena.harness.backbone import Backbone
from alignarena.harness.cache import Cache
from alignarena.harness.meter import Meter
from alignarena.harness.packing import Pack, micro_batches
from alignarena.harness.tokens import TokenSequence

Output = Literal["logps", "values", "scores", "embeddings"]  # (T,), (T,), () and (D,) a sequence
Table = dict[TokenSequence, Tensor]
_REVISION = 2  # raise it when a change makes stored reference log-probs wrong


class Part:
    """Sequences that one forward pass takes."""

    def __init__(self, backbone: Backbone, sequences: Sequence[TokenSequence], reused: bool = False) -> None:
        """Take sequences; ``reused``: several passes read them, so that their layout is kept."""
        self.sequences = tuple(sequences)
        layout = partial(backbone.pack, self.sequences)
        self.packed: Callable[[], Pack] = cache(layout) if reused else layout

    def table(self, output: Output, flat: Tensor) -> Table:
        """Cut an output of all sequences into those of each."""
        lengths = [len(sequence.completion) for sequence in self.sequences]
        each = flat.unbind() if output in ("scores", "embeddings") else torch.split(flat, lengths)
        return dict(zip(self.sequences, each, strict=True))


@torch.no_grad()
def computed(
    backbone: Backbone, output: Output, variant: str, parts: Iterable[Part], meter: Meter,
    done: Callable[[int, int], None] = lambda sequences, tokens: None,
) -> Table:  # fmt: skip
    """Compute an output of a variant for every sequence of this process's parts; return those of all processes."""
    table: Table = {}
    used = 0
    for part in parts:
        packed = part.packed()
        table.update(part.table(output, getattr(backbone, output)(variant, packed)))
        used += packed.tokens
        done(len(part.sequences), packed.tokens)
    charge(backbone, meter, used)
    return everywhere(backbone, table)


def charge(backbone: Backbone, meter: Meter, tokens: int) -> None:
    """Charge a forward pass over this process's tokens, and those of the others."""
    used = sum(gather_object([tokens]))
    meter.add(scored_tokens=used, flops=2.0 * backbone.parameters * used)


def everywhere(backbone: Backbone, table: Table) -> Table:
    """Return what all processes computed."""
    if backbone.accelerator.num_processes == 1:
        return table
    shards = gather_object([[(sequence, value.tolist()) for sequence, value in table.items()]])
    device = backbone.accelerator.device
    return {sequence: torch.tensor(value, device=device) for shard in shards for sequence, value in shard}


def whole_prompts(backbone: Backbone, sequences: Iterable[TokenSequence]) -> list[Part]:
    """Cut sequences into this process's parts; completions of a prompt stay together: split, it is computed twice."""
    by_prompt: dict[object, list[TokenSequence]] = {}
    for sequence in dict.fromkeys(sequences):
        by_prompt.setdefault(sequence.prompt, []).append(sequence)
    accelerator = backbone.accelerator
    groups = list(by_prompt.values())[accelerator.process_index :: accelerator.num_processes]
    cut = micro_batches(groups, 2 * backbone.config.tokens_per_batch, backbone.form)
    return [Part(backbone, [sequence for group in part for sequence in groups[group]]) for part in cut]


class References:
    """Log-probs under the policy that fits start from, on disk for every fit that reads the same sequences."""

    def __init__(self, backbone: Backbone, cache: Cache, start: str) -> None:
        """Take the digest of the policy."""
        self.backbone, self.cache, self.start = backbone, cache, start

    def logps(
        self, variant: str, parts: Sequence[Part], meter: Meter, keep: bool
    ) -> Table:
        """Return log-probs (T,) of each sequence; what is found is charged what it cost to compute.

        Args:
            variant: The policy's name in the backbone.
            parts: Of this process, laid out as the first epoch of the fit will be: there the policy then equals its
                reference to the last bit. How sequences share a batch is part of the key, so that a result never
                depends on who computed it first.
            meter: What is charged.
            keep: Whether others may read the same rows: rollouts are read once.
        """
        if not keep:
            return computed(self.backbone, "logps", variant, parts, meter)
        every = gather_object([[list(part.sequences) for part in parts]])
        key = digest("reference", _REVISION, self.backbone.digest, self.start, every)
        ordered = list(dict.fromkeys(sequence for shard in every for part in shard for sequence in part))
        record = self.cache.record(key)
        if all(gather_object([record is not None])) and record is not None:
            meter.add(**record["cost"])
            return self._read(self.cache.path(key), ordered)
        started, own = time.perf_counter(), Meter()
        table = computed(self.backbone, "logps", variant, parts, own)
        meter.add(scored_tokens=own.ledger.scored_tokens, flops=own.ledger.flops)
        if self.backbone.accelerator.is_main_process:
            cost = {"scored_tokens": own.ledger.scored_tokens, "flops": own.ledger.flops,
                    "seconds": time.perf_counter() - started}  # fmt: skip
            flat = torch.cat([table[sequence].cpu() for sequence in ordered])
            self.cache.put(key, {"cost": cost}, lambda folder: save_file({"logps": flat}, folder / "logps.safetensors"))
        return table

    def _read(self, folder: Path, ordered: list[TokenSequence]) -> Table:
        flat = load_file(folder / "logps.safetensors")["logps"].to(self.backbone.accelerator.device)
        lengths = [len(sequence.completion) for sequence in ordered]
        return dict(zip(ordered, torch.split(flat, lengths), strict=True))
