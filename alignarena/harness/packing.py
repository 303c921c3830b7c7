"""Sequences into tensors: completions of one prompt share it, so that the prompt is computed once.

A packed row is ``[prompt][y1]...[yK]``: every completion sees the prompt and itself, never its neighbours, and its
positions start again after the prompt. The rows of a micro-batch stand one after another, without padding, and what
all their prompts begin with (a template, a system message, solved examples) stands once before them. A model that
cannot be told which tokens see each other gets the plain form: one sequence a row, padded on the right.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from alignarena.harness.attention import PackedLayout
from alignarena.harness.blocks import PackedRow, common_prefix, with_prefix
from alignarena.harness.flex import block_mask
from alignarena.harness.tokens import Ids, TokenSequence

Form = Literal["blocks", "flex", "plain"]  # how attention is told who sees whom


@dataclass(frozen=True)
class Pack:
    """Tensors of some sequences. R rows of length L (R = 1 unless plain); S sequences; N completion tokens in all."""

    input_ids: Tensor  # (R, L)
    position_ids: Tensor  # (R, L)
    attention: dict[str, Any]  # what the model's forward is given: a layout, a block mask, or nothing
    source: Tensor  # (N,) flat position whose output predicts each completion token, sequence after sequence
    target: Tensor  # (N,) the completion tokens
    last: Tensor  # (S,) flat position of the last token of each sequence: where a reward model reads
    lengths: tuple[int, ...]  # completion tokens of each sequence
    tokens: int  # of the rows, padding not counted; a prefix that they share is counted in each


def share_prompts(sequences: Sequence[TokenSequence], share: bool) -> list[list[int]]:
    """Group the indices of sequences that may stand in one packed row."""
    if not share:
        return [[i] for i in range(len(sequences))]
    rows: dict[Ids, list[int]] = {}
    for i, sequence in enumerate(sequences):
        rows.setdefault(sequence.prompt, []).append(i)
    return list(rows.values())


def row_length(sequences: Sequence[TokenSequence], row: Iterable[int]) -> int:
    """Return the tokens of a packed row."""
    members = list(row)
    return len(sequences[members[0]].prompt) + sum(len(sequences[i].completion) for i in members)


def pack(sequences: Sequence[TokenSequence], form: Form = "blocks", device: torch.device | str = "cpu") -> Pack:
    """Lay sequences out in one of the forms, on a device."""
    rows = share_prompts(sequences, form != "plain")
    prefix = common_prefix([sequences[row[0]].prompt for row in rows]) if form == "blocks" else 0
    lengths = [row_length(sequences, row) for row in rows]
    placed = with_prefix(prefix, [(len(sequences[row[0]].prompt), tuple(len(sequences[i].completion) for i in row))
                                  for row in rows])  # fmt: skip
    if form == "plain":
        shape = (len(rows), max(lengths))
        placed = [row._replace(start=r * shape[1]) for r, row in enumerate(placed)]
    else:
        shape = (1, sum(lengths) - prefix * (len(rows) - 1))
    ids, positions = np.zeros(shape[0] * shape[1], np.int64), np.zeros(shape[0] * shape[1], np.int64)
    ids[:prefix], positions[:prefix] = sequences[0].prompt[:prefix], np.arange(prefix)
    sizes = np.array([len(sequence.completion) for sequence in sequences])
    begin, before = np.zeros_like(sizes), np.zeros_like(sizes)  # where a completion lies, and what predicts its first
    start = np.zeros_like(sizes)  # position of its first token
    for place, row in zip(placed[-len(rows) :], rows, strict=True):
        prompt = sequences[row[0]].prompt
        at = place.start + place.prompt
        ids[place.start : at], positions[place.start : at] = prompt[prefix:], np.arange(prefix, len(prompt))
        begin[row], before[row], start[row] = at + np.cumsum(sizes[row]) - sizes[row], at - 1, len(prompt)
    target = np.fromiter(chain.from_iterable(sequence.completion for sequence in sequences), np.int64, sizes.sum())
    inside = np.arange(len(target)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    where = np.repeat(begin, sizes) + inside
    ids[where], positions[where] = target, np.repeat(start, sizes) + inside
    source = np.where(inside == 0, np.repeat(before, sizes), where - 1)
    return Pack(
        input_ids=torch.from_numpy(ids).view(shape).to(device),
        position_ids=torch.from_numpy(positions).view(shape).to(device),
        attention=_attention(placed, form, device),
        source=torch.from_numpy(source).to(device),
        target=torch.from_numpy(target).to(device),
        last=torch.from_numpy(begin + sizes - 1).to(device),
        lengths=tuple(sizes.tolist()),
        tokens=sum(lengths),
    )


def _attention(rows: Sequence[PackedRow], form: Form, device: torch.device | str) -> dict[str, Any]:
    if form == "blocks":
        return {"layout": PackedLayout(rows, device)}
    return {"attention_mask": block_mask(rows, device)} if form == "flex" else {}


def micro_batches(groups: Sequence[Sequence[TokenSequence]], tokens: int, form: Form = "blocks") -> list[list[int]]:
    """Cut groups of sequences into micro-batches of at most ``tokens`` tokens, padding counted; a group stays whole.

    Groups of one prompt go together, and then those of like length: what they share is computed, and counted, once. A
    group longer than the limit gets a micro-batch of its own.

    Returns:
        Indices of the groups of each micro-batch.
    """
    if groups and form != "plain":
        distinct = dict.fromkeys(chain.from_iterable(groups))
        shared = {sequence.prompt for sequence in distinct}
        if sum(map(len, shared)) + sum(len(sequence.completion) for sequence in distinct) <= tokens:
            return [list(range(len(groups)))]  # the usual case, and all that follows would take longer
    pieces = [dict(chain.from_iterable(_pieces(sequence, form) for sequence in group)) for group in groups]
    sizes = [max(each.values()) if form == "plain" else sum(each.values()) for each in pieces]
    largest: dict[Ids, int] = {}
    for group, size in zip(groups, sizes, strict=True):
        largest[group[0].prompt] = max(largest.get(group[0].prompt, 0), size)
    prompts = [group[0].prompt for group in groups]
    batches: list[list[int]] = []
    held: dict[object, int] = {}
    for i in sorted(range(len(groups)), key=lambda i: (-largest[prompts[i]], prompts[i], -sizes[i], i)):
        grown = held | pieces[i]
        filled = max(grown.values()) * len(grown) if form == "plain" else sum(grown.values())
        if batches and filled <= tokens:
            batches[-1].append(i)
            held = grown
        else:
            batches.append([i])
            held = pieces[i]
    return batches


def _pieces(sequence: TokenSequence, form: Form) -> list[tuple[object, int]]:
    """Return what a batch holds once however often it comes, and its tokens."""
    if form == "plain":
        return [(sequence, len(sequence.prompt) + len(sequence.completion))]
    return [(sequence.prompt, len(sequence.prompt)), (sequence, len(sequence.completion))]
