"""Losses of reward models: pure functions from scores to one loss a row.

Shapes: B rows, K completions of a K-wise row. Nothing on padding is ever read. Metrics carry no gradient.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from alignarena.core.contract import NOTHING, Batch
from alignarena.methods.parts.losses import PAIR, OfflineLoss, PairLoss, Per, Reads, accuracy


def pairs(exists: Tensor) -> tuple[Tensor, Tensor]:
    """Return both members of each pair of K completions, in the order of ``itertools.combinations``."""
    first, second = torch.combinations(torch.arange(exists.shape[1], device=exists.device)).unbind(1)
    return first, second


@dataclass(frozen=True)
class PairwiseRewardLoss(PairLoss):
    """Bradley-Terry loss of a reward model on pairs (Llama 2; arXiv:2307.09288, eq. 1 and 2).

    ``-log sigmoid(r_chosen - r_rejected - m)``, with m the pair's ``margin`` or 0. With ``soft`` labels it is the
    cross-entropy of softmax(r_chosen, r_rejected) with the pair's ``probability`` (RLAIF; arXiv:2309.00267), least
    where the gap of the scores is the log-odds of that probability.
    """

    margin: bool = False  # whether the rows' margin must be cleared

    reads: ClassVar[Reads] = PAIR
    needs: ClassVar[frozenset[str]] = NOTHING
    per: ClassVar[Per] = "row"

    @property
    def columns(self) -> frozenset[str]:
        """Return the margin and the probability, if they are used."""
        return super().columns | frozenset({"margin"} if self.margin else NOTHING)

    def __call__(self, outputs: Mapping[str, Tensor], batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the loss of each pair (B,); both outputs are scores (B,)."""
        gap = outputs["chosen"] - outputs["rejected"]
        margin = batch.columns["margin"] if self.margin else 0.0
        loss = self.expected(-logsigmoid(gap - margin), -logsigmoid(-gap - margin), batch)
        return loss, {"accuracy": accuracy(gap).detach(), "margin": gap.detach()}


@dataclass(frozen=True)
class KWiseRewardLoss(OfflineLoss):
    """Bradley-Terry loss of a reward model on rankings (InstructGPT; arXiv:2203.02155, eq. 1).

    A row is all pairs of a prompt's K completions: the mean over its strict pairs of
    ``-log sigmoid(r_better - r_worse - margin_scale m)``. The mean over a batch is thus the mean over prompts, however
    many pairs each has; the mean over all pairs would let the longest rankings dominate. Ties are dropped; a row of
    ties has loss 0 and accuracy 1/2.
    """

    margin_scale: float = 0.0  # weight of the margins, which are strengths of preference and never negative

    reads: ClassVar[Reads] = {"completions": ("prompt", "completions")}
    needs: ClassVar[frozenset[str]] = NOTHING
    per: ClassVar[Per] = "row"

    @property
    def columns(self) -> frozenset[str]:
        """Return the ranks, and the margins if they are used."""
        return frozenset({"ranks", "margins"}) if self.margin_scale else frozenset({"ranks"})

    def __call__(self, outputs: Mapping[str, Tensor], batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the loss of each ranking (B,); ``outputs["completions"]`` is scores (B, K), rows may have fewer."""
        exists = batch.mask["completions"].sum(-1) > 0
        scores, ranks = outputs["completions"].masked_fill(~exists, 0.0), batch.columns["ranks"]
        first, second = pairs(exists)
        strict = exists[:, first] & exists[:, second] & (ranks[:, first] != ranks[:, second])
        sign = torch.sign(ranks[:, second] - ranks[:, first]).to(scores.dtype).masked_fill(~strict, 0.0)
        gap = sign * (scores[:, first] - scores[:, second])
        count = strict.sum(1).clamp(min=1)
        loss = -(logsigmoid(gap - self._margins(batch, exists, strict)) * strict).sum(1) / count
        metrics = {
            "accuracy": torch.where(strict.any(1), (accuracy(gap) * strict).sum(1) / count, 0.5),
            "margin": gap.sum(1) / count,
        }
        return loss, {name: value.detach() for name, value in metrics.items()}

    def _margins(self, batch: Batch, exists: Tensor, strict: Tensor) -> Tensor:
        if not self.margin_scale:
            return torch.zeros_like(strict, dtype=torch.float)
        # a row lists its pairs by its own K, not by the batch's, so each row has its own place for pair (i, j)
        first, second = pairs(exists)
        k = exists.sum(1, keepdim=True)
        place = first * (2 * k - first - 1) // 2 + second - first - 1
        margins: Tensor = batch.columns["margins"].gather(1, torch.where(strict, place, 0))
        return self.margin_scale * margins.masked_fill(~strict, 0.0)
