"""Distributions over all completions, computed by the model itself: one plain forward over every state of every prompt.

What the harness makes of packed rows is not used here: measures must not share its mistakes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch

from alignarena.core.feedback import Standardised
from alignarena.evaluators.exact.leaves import Leaves
from alignarena.evaluators.exact.world import Floats
from alignarena.harness.backbone import Backbone
from alignarena.harness.tokens import Ids

_TOKENS = 65_536  # in one forward pass


class Enumeration:
    """All N completions of P prompts, of equal length, under the variants of a backbone."""

    def __init__(self, backbone: Backbone, leaves: Leaves, prompts: Sequence[Ids]) -> None:
        self.backbone, self.leaves = backbone, leaves
        self.prompts = np.array(prompts)

    @torch.no_grad()
    def token_logps(self, policy: Any) -> Floats:
        """Return log-probs (P, N, L) in nats of each token of each completion under a trainable policy."""
        variant, width = policy.load(self.backbone), self.prompts.shape[1]
        found = []
        for rows in _cut(self._with_completions(self.leaves.prefix_tokens[None, 1:])):
            positions, mask = (each.expand(len(rows), *each.shape[1:]) for each in self._tree)
            hidden = self._hidden(variant, rows, position_ids=positions, attention_mask=mask)[:, width - 1 :]
            logits = self.backbone.head(variant)(hidden.to(self.backbone.dtype)).float()
            logps = torch.log_softmax(logits, -1)[..., : self.leaves.tokens + 1].double().cpu().numpy()
            found += [self.leaves.each(each) for each in logps]
        return np.stack(found)

    @cached_property
    def _tree(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Positions and mask of a row ``[prompt][strings]``: each string sees the prompt and what it begins with."""
        width, backbone = self.prompts.shape[1], self.backbone
        positions = np.concatenate([np.arange(width), width - 1 + self.leaves.prefix_lengths[1:]])
        seen = np.tri(len(positions), dtype=bool)
        seen[width:, width:] = self.leaves.begins_with[1:, 1:]
        mask = torch.zeros(seen.shape, dtype=backbone.dtype)  # added to scores, which every kernel understands
        mask.masked_fill_(torch.from_numpy(~seen), torch.finfo(backbone.dtype).min)
        device = backbone.accelerator.device
        return torch.from_numpy(positions)[None].to(device), mask[None, None].to(device)

    def logps(self, policy: Any) -> Floats:
        """Return log-probs (P, N) in nats of the completions under a trainable policy."""
        return self.token_logps(policy).sum(2)  # type: ignore[no-any-return]

    @torch.no_grad()
    def scores(self, scorer: Any) -> Floats:
        """Return the scores (P, N) of the completions by a learned reward model, standardised or not."""
        if isinstance(scorer, Standardised):
            return (self.scores(scorer.scorer) - scorer.mean) / scorer.std
        variant = scorer.load(self.backbone)
        found, last = [], self.prompts.shape[1] - 1 + self.leaves.lengths
        rows = self._with_completions(np.where(self.leaves.ids <= self.leaves.tokens, self.leaves.ids, 0))
        for some, at in zip(_cut(rows), _cut(np.tile(last, len(self.prompts)), rows.shape[1]), strict=True):
            hidden = self._hidden(variant, some)  # padding stands after what is read, which never sees it
            read = hidden[torch.arange(len(some)), torch.from_numpy(at)].float()
            found.append(self.backbone.heads[variant](read)[:, 0].double().cpu().numpy())
        return np.concatenate(found).reshape(len(self.prompts), len(self.leaves))

    def _hidden(self, variant: str, rows: Any, **how: Any) -> torch.Tensor:
        ids = torch.from_numpy(rows).to(self.backbone.accelerator.device)
        return self.backbone.decode(variant, input_ids=ids, **how).last_hidden_state  # type: ignore[no-any-return]

    def _with_completions(self, completions: Any) -> Any:
        """Return token ids of every prompt with every completion, completions within prompts."""
        prompts = np.repeat(self.prompts, len(completions), 0)
        return np.concatenate([prompts, np.tile(completions, (len(self.prompts), 1))], 1)


def _cut(rows: Any, width: int = 0) -> Iterator[Any]:
    """Yield rows a bounded number of tokens a time."""
    size = max(1, _TOKENS // (width or rows.shape[1]))
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
