"""Keys and values of a batch of rollouts: those of a prompt once, however many completions continue it.

A prompt's keys answer all its completions in one product; a completion adds its own beside them. So a step reads each
prompt once and not n times, repeats nothing for grouped heads, and appends in place; what all prompts begin with
(solved examples), where it is long, it reads once for all. Torch's SDPA takes 4 to 28 ms a layer where this takes 1 ms
(256 rows on 2 cores, prompts of 30 to 250 tokens). Products read the whole room that a buffer has, with what is not
yet written hidden: of a part of it they would make a copy first (28 of 32 tokens: 1.1 ms a layer against .4).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor

from alignarena.harness.attention import PackedLayout
from alignarena.harness.blocks import common_prefix, with_prefix
from alignarena.harness.tokens import Ids

_ROOM = 32  # tokens that a buffer has to spare when it is made
_APART = 64  # tokens of a common beginning from which on its keys are kept once: it costs two more products a layer


class Prefill(PackedLayout):
    """Prompts one after another without padding, what all begin with once; keeps each layer's keys and values."""

    def __init__(self, prompts: Sequence[Ids], device: torch.device) -> None:
        self.prefix = common_prefix(prompts)
        rows = with_prefix(self.prefix, [(len(prompt), (0,)) for prompt in prompts])
        super().__init__(rows, device)
        self.prompts = rows[-len(prompts) :]
        ids = [*prompts[0][: self.prefix], *(token for prompt in prompts for token in prompt[self.prefix :])]
        places = [range(self.prefix), *(range(self.prefix, len(prompt)) for prompt in prompts)]
        self.input_ids = torch.tensor([ids], device=device)
        self.position_ids = torch.tensor([[place for of in places for place in of]], device=device)
        self.last = torch.tensor([row.start + row.prompt - 1 for row in self.prompts], device=device)  # (P,)
        self.kept: dict[int, tuple[Tensor, Tensor]] = {}  # by layer: keys and values, (N, KV, D)

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int | None
    ) -> Tensor:
        """Attend as packed rows do."""
        self.kept[layer] = key, value
        return super().attend(layer, query, key, value, scaling, window)


class Decoding:
    """The state of B completions under way of P prompts: B rows, each of one of the prompts."""

    def __init__(self, prefill: Prefill, repeats: Tensor) -> None:
        """Take prefilled prompts and how many completions (P,) each has."""
        device = repeats.device
        prefix = prefill.prefix
        self._shared = prefix if prefix >= _APART else 0  # tokens of every prompt whose keys are kept once
        lengths = torch.tensor([prefix + row.prompt for row in prefill.prompts], device=device)
        starts = torch.tensor([row.start - prefix for row in prefill.prompts], device=device)
        inside = torch.arange(int(lengths.max()), device=device)
        self._present = inside < lengths[:, None]  # (P, width)
        own = torch.where(inside < prefix, inside, starts[:, None] + inside)
        take = torch.where(self._present, own, 0)[:, self._shared :].flatten()
        # of each layer: (KV, shared, D) of all prompts, and (P * KV, width - shared, D)
        self._common = {layer: [_by_head(x[: self._shared], 1) for x in kept] for layer, kept in prefill.kept.items()}
        self._prompts = {layer: [_by_head(x.index_select(0, take), len(lengths)) for x in kept]
                         for layer, kept in prefill.kept.items()}  # fmt: skip
        self._own: dict[int, list[Tensor]] = {}  # (B, KV, room, D) keys and values of each layer
        self._steps = 0  # tokens that every completion has appended
        self._start = lengths  # (P,) position of the first completion token
        self._choose(torch.repeat_interleave(torch.arange(len(lengths), device=device), repeats))

    @property
    def positions(self) -> Tensor:
        """Return the position of the token to be appended, (B, 1)."""
        return (self._start[self._prompt] + self._steps)[:, None]

    def keep(self, rows: Tensor) -> None:
        """Go on with some rows only, whatever their order; those that stay where they are cost nothing."""
        moved = (rows != torch.arange(len(rows), device=rows.device)).nonzero()[:, 0]
        for buffer in chain.from_iterable(self._own.values()):
            buffer[moved, :, : self._steps] = buffer[rows[moved], :, : self._steps]
        self._own = {layer: [x[: len(rows)] for x in own] for layer, own in self._own.items()}
        self._choose(self._prompt[rows])

    def appended(self) -> None:
        """Note that all layers have seen a token."""
        self._steps += 1
        self._bias.clear()

    def _choose(self, prompt: Tensor) -> None:
        """Lay the rows out as a grid of prompts x completions, padded where prompts have fewer rows than others."""
        self._prompt = prompt  # (B,) of each row
        count = torch.bincount(prompt, minlength=len(self._start))
        most = int(count.max())
        first = torch.cumsum(count, 0) - count
        each = torch.arange(len(prompt), device=prompt.device)
        order = prompt.argsort(stable=True)
        self._grid_of_row = torch.empty_like(prompt)
        self._grid_of_row[order] = prompt[order] * most + each - first[prompt[order]]
        self._row_of_grid = torch.zeros(len(count) * most, dtype=torch.long, device=prompt.device)
        self._row_of_grid[self._grid_of_row] = each
        self._bias: dict[tuple[int | None, torch.dtype], Tensor] = {}

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int | None
    ) -> Tensor:
        """Return outputs (B, H, D) of queries (B, H, D), keys and values (B, KV, D), which are appended."""
        rows, kv, width = key.shape
        own_k, own_v = (x.flatten(0, 1) for x in self._append(layer, key, value))  # (B * KV, room, D)
        prompt_k, prompt_v = self._prompts[layer]
        queries = (query * scaling).view(rows, kv, -1, width)
        own = torch.bmm(queries.flatten(0, 1), own_k.transpose(1, 2)).view(rows, kv, -1, own_k.shape[1])
        prompt = self._to_rows(torch.bmm(self._to_grid(queries), prompt_k.transpose(1, 2)))
        scores = [prompt, own]
        if self._shared:
            common_k, common_v = self._common[layer]
            scores.insert(0, _of_one(torch.bmm(_as_one(queries), common_k.transpose(1, 2)), rows))
        probs = torch.softmax(torch.cat(scores, -1).add_(self._hidden(own, window)), -1)
        on_common, on_prompt, on_own = torch.split(probs, [self._shared, prompt.shape[-1], own.shape[-1]], -1)
        out = self._to_rows(torch.bmm(self._to_grid(on_prompt), prompt_v))
        out = out + torch.bmm(on_own.flatten(0, 1), own_v).view_as(out)
        if self._shared:
            out = out + _of_one(torch.bmm(_as_one(on_common), common_v), rows)
        return out.view(rows, -1, width)

    def _to_grid(self, rows: Tensor) -> Tensor:
        """Turn (B, KV, G, X) into (P * KV, n * G, X), completions of a prompt side by side."""
        _, kv, group, width = rows.shape
        grid = rows.index_select(0, self._row_of_grid).view(len(self._start), -1, kv, group, width)
        return grid.transpose(1, 2).reshape(len(self._start) * kv, -1, width)

    def _to_rows(self, grid: Tensor) -> Tensor:
        """Undo :func:`_to_grid`."""
        prompts, n = len(self._start), len(self._row_of_grid) // len(self._start)
        kv = len(grid) // prompts
        split = grid.view(prompts, kv, n, -1, grid.shape[-1]).transpose(1, 2).flatten(0, 1)
        return split.index_select(0, self._grid_of_row)

    def _hidden(self, own: Tensor, window: int | None) -> Tensor:
        """Return what hides padding, and keys outside a sliding window, from scores (B, KV, G, width + room)."""
        key = window, own.dtype
        if key not in self._bias:
            later = self._start[:, None] + torch.arange(own.shape[-1], device=own.device)
            written = torch.arange(own.shape[-1], device=own.device) <= self._steps
            seen = torch.cat([self._present, written.expand_as(later)], 1)
            if window is not None:
                at = torch.arange(self._present.shape[1], device=own.device).expand_as(self._present)
                seen &= (self._start[:, None] + self._steps) - torch.cat([at, later], 1) < window
            bias = torch.zeros(seen.shape, dtype=own.dtype, device=own.device)
            bias.masked_fill_(~seen, torch.finfo(own.dtype).min)
            self._bias[key] = bias[self._prompt][:, None, None]
        return self._bias[key]

    def _append(self, layer: int, key: Tensor, value: Tensor) -> list[Tensor]:
        """Append a token's key and value (B, KV, D); return the buffers with all of them, (B, KV, room, D)."""
        room = self._own.get(layer)
        if room is None or room[0].shape[2] == self._steps:
            more = [x.new_zeros(*x.shape[:2], self._steps + _ROOM, x.shape[2]) for x in (key, value)]
            for old, new in zip(room or (), more, strict=False):
                new[:, :, : self._steps] = old
            self._own[layer] = room = more
        for buffer, new in zip(room, (key, value), strict=True):
            buffer[:, :, self._steps] = new
        return room


def _by_head(tokens: Tensor, prompts: int) -> Tensor:
    """Turn (P * T, KV, D) into (P * KV, T, D)."""
    _, kv, width = tokens.shape
    return tokens.view(prompts, -1, kv, width).transpose(1, 2).reshape(prompts * kv, -1, width)


def _as_one(rows: Tensor) -> Tensor:
    """Turn (B, KV, G, X) into (KV, B * G, X): all rows as the queries of one product."""
    return rows.transpose(0, 1).flatten(1, 2)


def _of_one(product: Tensor, rows: int) -> Tensor:
    """Undo :func:`_as_one`."""
    return product.view(len(product), rows, -1, product.shape[-1]).transpose(0, 1)
