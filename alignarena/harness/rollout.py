"""One batch of rollouts, step by step: what every row's next token is drawn from.

The fast path keeps each prompt's keys once (``decoding``); a model that does not take it runs with its own cache and
left padding, each prompt repeated.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from alignarena.core.contract import Sampling
from alignarena.harness.backbone import Backbone
from alignarena.harness.decoding import Decoding, Prefill
from alignarena.harness.draw import choose
from alignarena.harness.tokens import Ids

_ROWS = 512  # whose logits are computed at once: few at once cost reading the whole vocabulary for little work
_IN_CACHE = 2**20  # fp32 logits held at once on CPU: 4 MiB, which stay near a core through all passes


class Rollout(ABC):
    """B rows of a variant, at first in the order of their prompts."""

    output: Tensor  # (B, D) final hidden states, or (B, V) logits of a model whose head is more than a linear layer

    def __init__(self, backbone: Backbone, variant: str) -> None:
        self.backbone, self.variant = backbone, variant

    @abstractmethod
    def keep(self, rows: Tensor) -> None:
        """Go on with some of the rows only, in any order: a row is then what ``rows`` names in its place."""

    @abstractmethod
    def extend(self, token: Tensor) -> None:
        """Append a token (B,) to every row."""

    def choose(self, numbers: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
        """Draw the next token of every row, as :func:`~alignarena.harness.draw.choose` does."""
        drawn = []
        for start in range(0, len(numbers), _ROWS):
            output, own = self.output[start : start + _ROWS], numbers[start : start + _ROWS]
            logits = self.backbone.weights.head_of(output, self.variant) if self.backbone.plain_head else output
            few = max(1, _IN_CACHE // logits.shape[1]) if logits.device.type == "cpu" else _ROWS
            drawn += [choose(logits[i : i + few].float(), own[i : i + few], sampling) for i in range(0, len(own), few)]
        tokens, logps = zip(*drawn, strict=True)
        return torch.cat(tokens), torch.cat(logps)

    def _run(self, keep: Tensor, **inputs: Any) -> Tensor:
        """Return the outputs at some places of the second dimension, (B, D or V)."""
        if self.backbone.plain_head:
            output = self.backbone.decode(self.variant, **inputs).last_hidden_state[:, keep]
        else:
            model = self.backbone.weights.activate(self.variant)
            output = model(**{"use_cache": False, **inputs}, logits_to_keep=keep).logits
        # contiguous: on a strided (B, 1, D) torch copies the head once a row, gigabytes of it
        return output.flatten(0, 1).contiguous()  # type: ignore[no-any-return]


class SharedPrompts(Rollout):
    """Each prompt's keys and values are computed and kept once."""

    def __init__(self, backbone: Backbone, variant: str, prompts: Sequence[Ids], repeats: Tensor) -> None:
        super().__init__(backbone, variant)
        prefill = Prefill(prompts, repeats.device)
        output = self._run(
            prefill.last, input_ids=prefill.input_ids, position_ids=prefill.position_ids, layout=prefill
        )
        self.output = output.repeat_interleave(repeats, 0)
        self._state = Decoding(prefill, repeats)

    def keep(self, rows: Tensor) -> None:
        """Go on with some of the rows only."""
        self._state.keep(rows)

    def extend(self, token: Tensor) -> None:
        """Append a token to every row."""
        state, last = self._state, token.new_zeros(1)
        self.output = self._run(last, input_ids=token[:, None], position_ids=state.positions, layout=state)
        state.appended()


class RepeatedPrompts(Rollout):
    """The plain path: transformers' own cache, repeated for every completion."""

    def __init__(self, backbone: Backbone, variant: str, prompts: Sequence[Ids], repeats: Tensor) -> None:
        super().__init__(backbone, variant)
        device, width = repeats.device, max(len(prompt) for prompt in prompts)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
        ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts], device=device)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        self._cache, self._last = DynamicCache(), repeats.new_full((1,), width - 1)
        output = self._run(self._last, **self._inputs(ids, mask, positions))
        each = torch.repeat_interleave(torch.arange(len(prompts), device=device), repeats)
        self._cache.batch_select_indices(each)
        self.output, self._mask, self._position = output[each], mask[each], positions[each, -1:]

    def _inputs(self, ids: Tensor, mask: Tensor, positions: Tensor) -> dict[str, Any]:
        return {"input_ids": ids, "attention_mask": mask, "position_ids": positions, "past_key_values": self._cache,
                "use_cache": True}  # fmt: skip

    def keep(self, rows: Tensor) -> None:
        """Go on with some of the rows only."""
        self._cache.batch_select_indices(rows)
        self._mask, self._position = self._mask[rows], self._position[rows]

    def extend(self, token: Tensor) -> None:
        """Append a token to every row."""
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(token), 1)], 1)
        self._position = self._position + 1
        self.output = self._run(self._last * 0, **self._inputs(token[:, None], self._mask, self._position))


def start(backbone: Backbone, variant: str, prompts: Sequence[Ids], repeats: Tensor) -> Rollout:
    """Prefill prompts and return their rollout, ``repeats`` (P,) rows a prompt."""
    kind = SharedPrompts if backbone.shares_prompts else RepeatedPrompts
    return kind(backbone, variant, prompts, repeats)
