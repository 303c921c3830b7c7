"""From rows to what a loss reads: token sequences once a row, whole prompts in a batch, padded tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alignarena.core.contract import Batch, Loss, Rows
from alignarena.core.degenerate import must_be_finite
from alignarena.core.errors import BadInput
from alignarena.core.rows import table_of
from alignarena.harness.tokens import Tokens, TokenSequence


@dataclass(frozen=True)
class Example:
    """One row as a loss reads it: a sequence (or K of them) by the keys of ``Loss.reads``, and its scalars."""

    group: str  # rows of one prompt go together
    sequences: Mapping[str, tuple[TokenSequence, ...]]
    k_wise: frozenset[str]  # keys that read a list of completions
    columns: Mapping[str, Any]
    spans: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # by key: the tokens a loss sees, if not all

    def tokens(self, key: str) -> int:
        """Return the completion tokens that a loss sees of a key."""
        if key in self.spans:
            start, stop = self.spans[key]
            return stop - start
        return sum(len(sequence.completion) for sequence in self.sequences[key])


def examples(rows: Rows, loss: Loss, tokens: Tokens) -> tuple[list[Example], Counter[str]]:
    """Tokenise rows for a loss; drop what no loss can use, counted by reason.

    Raises:
        BadInput: A column the loss reads is missing, or no row is left.
        RunFailed: What a column holds is not a finite number.
    """
    wanted = {column for pair in loss.reads.values() for column in pair} | set(loss.columns)
    missing = sorted(wanted - set(rows.column_names))
    if missing:
        raise BadInput(f"{type(loss).__name__} reads {missing}, which the rows lack; they have {rows.column_names}")
    kept: list[Example] = []
    dropped: Counter[str] = Counter()
    compared = len({prompt for prompt, _ in loss.reads.values()}) == 1  # completions of one prompt, not of several
    also = {f"{name}_{what}" for name in wanted for what in ("ids", "span")} | {"prompt_id", "prompt"}
    read = [name for name in rows.column_names if name in wanted | also]  # rollouts carry much that no loss asks for
    for row in table_of(rows).select(read).to_pylist():
        example = _example(row, loss, tokens)
        reason = _unusable(example, tokens, compared)
        if reason:
            dropped[reason] += 1
        else:
            kept.append(example)
    if not kept:
        why = ", ".join(f"{count} {reason}" for reason, count in dropped.items()) or "there were none"
        raise BadInput(f"no rows left to train {type(loss).__name__} on: {why}")
    return kept, dropped


def _example(row: Mapping[str, Any], loss: Loss, tokens: Tokens) -> Example:
    sequences = {}
    for key, (prompt_column, completion_column) in loss.reads.items():
        prompt = tokens.prompt_of(row, prompt_column)
        completions = tokens.completions_of(row, completion_column)
        sequences[key] = tuple(TokenSequence(prompt, completion) for completion in completions)
    return Example(
        group=str(row.get("prompt_id") or row["prompt"]),
        sequences=sequences,
        k_wise=frozenset(key for key, (_, column) in loss.reads.items() if not isinstance(row[column], str)),
        columns={column: _finite(row, column, loss) for column in loss.columns},
        spans={key: (row[f"{column}_span"][0], row[f"{column}_span"][1])
               for key, (_, column) in loss.reads.items() if row.get(f"{column}_span")},
    )  # fmt: skip


def _finite(row: Mapping[str, Any], column: str, loss: Loss) -> Any:
    must_be_finite(row[column], str(row.get("prompt_id")), type(loss).__name__, column)
    return row[column]


def _unusable(example: Example, tokens: Tokens, compared: bool) -> str | None:
    every = [sequence for group in example.sequences.values() for sequence in group]
    lengths = [len(sequence.completion) for sequence in every]
    if 0 in lengths:
        return "empty completion"
    if max(lengths) > tokens.config.max_new_tokens:
        return "longer than max_new_tokens"
    if any(not 0 <= start < stop <= len(example.sequences[key][0].completion)
           for key, (start, stop) in example.spans.items()):  # fmt: skip
        return "span outside the completion"
    same = compared and len(every) > 1 and every.count(every[0]) == len(every)
    if same and len({example.spans.get(key) for key in example.sequences}) == 1:
        return "identical completions"  # no preference: log 2 and no gradient
    return None


def grouped(items: Sequence[Example]) -> list[list[int]]:
    """Return the indices of the examples of each prompt, in order of first appearance."""
    groups: dict[str, list[int]] = {}
    for i, example in enumerate(items):
        groups.setdefault(example.group, []).append(i)
    return list(groups.values())


def sequences_of(items: Sequence[Example]) -> list[TokenSequence]:
    """Return the distinct sequences of some examples: what the model must compute."""
    return list(dict.fromkeys(s for example in items for group in example.sequences.values() for s in group))


class Collator:
    """Puts per-sequence tensors where a loss expects them: (B, T) a key, (B, K, T) where it reads a list."""

    def __init__(self, items: Sequence[Example], sequences: Sequence[TokenSequence], tokens: Tokens) -> None:
        self.items, self.sequences, self.tokens = items, sequences, tokens
        place = {sequence: i for i, sequence in enumerate(sequences)}
        self._index: dict[str, Tensor] = {}
        for key in items[0].sequences:
            if key in items[0].k_wise:
                rows = [[place[s] for s in example.sequences[key]] for example in items]
                # one past the end: a completion that is absent
                self._index[key] = torch.from_numpy(_padded(rows, len(sequences), np.int64))
            else:
                self._index[key] = torch.tensor([place[example.sequences[key][0]] for example in items])
        sizes = torch.tensor([len(sequence.completion) for sequence in sequences])
        grid = torch.arange(int(sizes.max()))[None, :]
        self._inside = grid < sizes[:, None]  # (S, T)
        self._flat = torch.where(self._inside, (torch.cumsum(sizes, 0) - sizes)[:, None] + grid, 0)

    def spread(self, values: Tensor) -> dict[str, Tensor]:
        """Turn a flat (N,) tensor, sequence after sequence, into (B, T) a key, zero on padding."""
        table = torch.where(self._inside.to(values.device), values[self._flat.to(values.device)], 0.0)
        return self.pick(torch.cat([table, table.new_zeros(1, table.shape[1])]))

    def pick(self, table: Tensor) -> dict[str, Tensor]:
        """Return the rows of a table (S + 1, ...) for every key; its last row stands for what is absent."""
        return {key: table[index.to(table.device)] for key, index in self._index.items()}

    def batch(self, device: torch.device) -> Batch:
        """Return masks, ends and columns."""
        inside = self._inside.to(device, torch.float32)
        mask = self.pick(torch.cat([inside, inside.new_zeros(1, inside.shape[1])]))
        ends = [*(self.tokens.finished(s.completion) for s in self.sequences), False]
        columns = {name: self._column(name).to(device) for name in self.items[0].columns}
        return Batch(
            mask={key: self._within_spans(key, one) for key, one in mask.items()},
            finished=self.pick(torch.tensor(ends, device=device)), columns=columns,
        )  # fmt: skip

    def _within_spans(self, key: str, mask: Tensor) -> Tensor:
        if not any(key in example.spans for example in self.items):
            return mask
        spans = [example.spans.get(key, (0, mask.shape[-1])) for example in self.items]
        start, stop = torch.tensor(spans, device=mask.device)[:, :, None].unbind(1)
        places = torch.arange(mask.shape[-1], device=mask.device)
        return mask * ((places >= start) & (places < stop))

    def _column(self, name: str) -> Tensor:
        values = [example.columns[name] for example in self.items]
        if not isinstance(values[0], list | tuple):
            return torch.tensor(values, dtype=torch.float32)
        return torch.from_numpy(_padded(values, np.nan, np.float32))


def _padded(rows: Sequence[Sequence[Any]], fill: float, kind: type[np.generic]) -> np.ndarray[Any, Any]:
    """Return rows of different lengths as one array (B, K)."""
    padded = np.full((len(rows), max(map(len, rows))), fill, dtype=kind)
    for to, row in zip(padded, rows, strict=True):
        to[: len(row)] = row
    return padded
