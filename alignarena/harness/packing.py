"""Sequences into tensors: completions of one prompt share it, so that the prompt is computed once.

A packed row is ``[prompt][y1]...[yK]``: every completion sees the prompt and itself, never its neighbours, and its
positions start again after the prompt. With one completion a row this is the ordinary causal layout.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alignarena.harness.tokens import Ids, TokenSequence


@dataclass(frozen=True)
class Pack:
    """Tensors of some sequences. R packed rows of length L; S sequences; N completion tokens in all."""

    input_ids: Tensor  # (R, L)
    position_ids: Tensor  # (R, L)
    attention_mask: Tensor | None  # (R, 1, L, L) bool; None where plain causal attention with right padding is enough
    source: Tensor  # (N,) flat position whose output predicts each completion token, sequence after sequence
    target: Tensor  # (N,) the completion tokens
    last: Tensor  # (S,) flat position of the last token of each sequence: where a reward model reads
    lengths: tuple[int, ...]  # completion tokens of each sequence

    @property
    def tokens(self) -> int:
        """Tokens the model computes, padding not counted."""
        return int(self._used)

    _used: int = 0

    def to(self, device: torch.device) -> Pack:
        """Move to a device."""
        mask = None if self.attention_mask is None else self.attention_mask.to(device)
        moved = (t.to(device) for t in (self.input_ids, self.position_ids))
        ids, positions = moved
        return Pack(
            ids, positions, mask, self.source.to(device), self.target.to(device), self.last.to(device), self.lengths,
            self._used,
        )  # fmt: skip


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


def pack(sequences: Sequence[TokenSequence], share: bool = True) -> Pack:
    """Lay sequences out as packed rows, padded on the right to the longest."""
    rows = share_prompts(sequences, share)
    length = max(row_length(sequences, row) for row in rows)
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    positions = torch.zeros(len(rows), length, dtype=torch.long)
    mask = torch.ones(length, length, dtype=torch.bool).tril().repeat(len(rows), 1, 1, 1)
    source: list[list[int]] = [[] for _ in sequences]
    used = 0
    for r, row in enumerate(rows):
        prompt = sequences[row[0]].prompt
        start = len(prompt)
        ids[r, :start] = torch.tensor(prompt)
        positions[r, :start] = torch.arange(start)
        for i in row:
            completion = sequences[i].completion
            stop = start + len(completion)
            ids[r, start:stop] = torch.tensor(completion)
            positions[r, start:stop] = torch.arange(len(prompt), len(prompt) + len(completion))
            mask[r, 0, start:stop, len(prompt) : start] = False
            source[i] = [r * length + p for p in (len(prompt) - 1, *range(start, stop - 1))]
            start = stop
        used += start
    last = [r * length + p for r, p in _ends(sequences, rows)]
    return Pack(
        input_ids=ids,
        position_ids=positions,
        attention_mask=mask if any(len(row) > 1 for row in rows) else None,
        source=torch.tensor([p for positions_of in source for p in positions_of]),
        target=torch.tensor([token for sequence in sequences for token in sequence.completion]),
        last=torch.tensor(last),
        lengths=tuple(len(sequence.completion) for sequence in sequences),
        _used=used,
    )


def _ends(sequences: Sequence[TokenSequence], rows: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """Return (packed row, position of the last token) of every sequence, in the order of the sequences."""
    ends: dict[int, tuple[int, int]] = {}
    for r, row in enumerate(rows):
        end = len(sequences[row[0]].prompt)
        for i in row:
            end += len(sequences[i].completion)
            ends[i] = (r, end - 1)
    return [ends[i] for i in range(len(sequences))]


def micro_batches(
    groups: Sequence[Sequence[TokenSequence]], tokens: int, share: bool = True
) -> list[list[int]]:
    """Cut groups of sequences into micro-batches of at most ``tokens`` padded tokens; a group stays whole.

    Groups of like length go together. A group longer than the limit gets a micro-batch of its own.

    Returns:
        Indices of the groups of each micro-batch.
    """
    shapes = []
    for group in groups:
        rows = share_prompts(group, share)
        shapes.append((max(row_length(group, row) for row in rows), len(rows)))
    batches: list[list[int]] = []
    longest, count = 0, 0
    for i in sorted(range(len(groups)), key=lambda i: (-shapes[i][0], i)):
        length, rows_of = shapes[i]
        if batches and max(longest, length) * (count + rows_of) <= tokens:
            batches[-1].append(i)
            count += rows_of
        else:
            batches.append([i])
            longest, count = length, rows_of
    return batches
