"""Distributions over all completions, computed by the model itself: one forward over every state of every prompt."""

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
        variant = policy.load(self.backbone)
        found = []
        for rows in self._forward(self.leaves.prefixes):
            hidden = self._hidden(variant, rows, self.prompts.shape[1] - 1)
            logits = self.backbone.head(variant)(hidden.to(self.backbone.dtype)).float()
            logps = torch.log_softmax(logits, -1)[..., : self.leaves.tokens + 1].double().cpu().numpy()
            found.append(logps)
        states = len(self.leaves.prefixes)
        flat = np.concatenate(found)
        return np.stack([self.leaves.each(flat[p * states : (p + 1) * states]) for p in range(len(self.prompts))])

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
        for first, rows in zip(*self._numbered(self._padded), strict=True):
            hidden = self._hidden(variant, rows, 0)
            at = torch.from_numpy(last[(first + np.arange(len(rows))) % len(last)]).to(hidden.device)
            read = hidden[torch.arange(len(rows), device=hidden.device), at]
            found.append(self.backbone.heads[variant](read.float())[:, 0].double().cpu().numpy())
        return np.concatenate(found).reshape(len(self.prompts), len(self.leaves))

    @cached_property
    def _padded(self) -> Any:
        return np.where(self.leaves.ids <= self.leaves.tokens, self.leaves.ids, 0)  # never attended to by what is read

    def _hidden(self, variant: str, rows: Any, start: int) -> torch.Tensor:
        ids = torch.from_numpy(rows).to(self.backbone.accelerator.device)
        return self.backbone.decode(variant, input_ids=ids).last_hidden_state[:, start:]  # type: ignore[no-any-return]

    def _forward(self, completions: Any) -> Iterator[Any]:
        """Yield (B, prompt + completion) token ids, completions within prompts, a bounded number of tokens a time."""
        yield from self._numbered(completions)[1]

    def _numbered(self, completions: Any) -> tuple[range, list[Any]]:
        every = np.concatenate(
            [np.repeat(self.prompts, len(completions), 0), np.tile(completions, (len(self.prompts), 1))], 1
        )
        size = max(1, _TOKENS // every.shape[1])
        return range(0, len(every), size), [every[i : i + size] for i in range(0, len(every), size)]
