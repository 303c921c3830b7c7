"""Losses of the regret preference model (CPL): of pairs of segments, and of whole rankings of them.

Shapes: B rows, K segments of a ranking, T completion tokens (padded on the right). Log-probs are in nats, fp32. Nothing
on padding is ever read. Metrics carry no gradient.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from alignarena.core.contract import NOTHING, Batch
from alignarena.core.errors import BadInput
from alignarena.methods.parts.advantages import masked
from alignarena.methods.parts.losses import PAIR, OfflineLoss, PairLoss, Per, Reads, accuracy
from alignarena.methods.parts.reward_losses import pairs


@dataclass(frozen=True)
class RegretLoss(OfflineLoss):
    """How the regret preference model scores a segment, ``S = alpha sum_t gamma^t log pi``, and contrasts two.

    t counts from the segment's first token. ``to_reference`` scores the log-ratio to the reference model instead (the
    authors' CPL-KL).
    """

    alpha: float = 0.1  # temperature: larger keeps the policy flatter, or closer to the reference model
    bias: float = 1.0  # the paper's lambda in (0, 1]: below 1, lowering both segments' log-probs no longer pays
    gamma: float = 1.0  # discount a token
    to_reference: bool = True
    bc_coef: float = 0.0  # weight of behaviour cloning on the preferred segment, nats a token

    per: ClassVar[Per] = "row"

    def __post_init__(self) -> None:
        """Check the bias.

        Raises:
            BadInput: It is not in (0, 1].
        """
        if not 0 < self.bias <= 1:
            raise BadInput(f"cpl: bias must be above 0 and at most 1, got {self.bias}")

    @property
    def needs(self) -> frozenset[str]:
        """Return the reference model, if scores are log-ratios."""
        return frozenset({"reference"}) if self.to_reference else NOTHING

    def scores(self, outputs: Mapping[str, Tensor], batch: Batch, key: str) -> Tensor:
        """Return S of the segments of a key, (..., T) to (...)."""
        mask = batch.mask[key]
        each = masked(outputs[key] - batch.reference[key] if self.to_reference else outputs[key], mask)
        total: Tensor = self.alpha * (each * self.gamma ** (mask.cumsum(-1) - 1)).sum(-1)
        return total

    def contrast(self, preferred: Tensor, other: Tensor, logps: Tensor, mask: Tensor) -> Tensor:
        """Return ``softplus(bias S(other) - S(preferred))``, less behaviour cloning of the preferred segments.

        Args:
            preferred: Scores (...) of the preferred segments.
            other: Scores (...) of the others.
            logps: Summed log-probs (...) of the preferred segments.
            mask: Theirs (..., T).
        """
        cloned = self.bc_coef * logps / mask.sum(-1).clamp(min=1)
        # softplus(-x) as DPO computes it: without bias the two then agree to the last bit, along a whole run
        return -logsigmoid(preferred - self.bias * other) - cloned


@dataclass(frozen=True)
class CPLLoss(RegretLoss, PairLoss):
    """Contrastive preference learning (Hejna et al., 2023; arXiv:2310.13639, eq. 5).

    ``softplus(bias S(rejected) - S(chosen))``. With ``to_reference``, bias 1 and gamma 1 that is DPO at beta = alpha.
    """

    reads: ClassVar[Reads] = PAIR

    def __call__(self, outputs: Mapping[str, Tensor], batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the loss of each pair (B,); both outputs are log-probs (B, T), T may differ between them."""
        scores = {side: self.scores(outputs, batch, side) for side in PAIR}
        chosen, rejected = scores["chosen"], scores["rejected"]
        logps = {side: masked(outputs[side], batch.mask[side]).sum(1) for side in PAIR}
        as_labelled = self.contrast(chosen, rejected, logps["chosen"], batch.mask["chosen"])
        flipped = self.contrast(rejected, chosen, logps["rejected"], batch.mask["rejected"])
        loss = self.expected(as_labelled, flipped, batch)
        metrics = {
            "accuracy": accuracy(chosen - rejected),
            "margin": chosen - rejected,
            "scores_chosen": chosen,
            "logps_chosen": logps["chosen"],
            "logps_rejected": logps["rejected"],
        }
        return loss, {name: value.detach() for name, value in metrics.items()}


@dataclass(frozen=True)
class KWiseCPLLoss(RegretLoss):
    """CPL on rankings: a row is all pairs of a prompt's K segments, and its loss the mean over them.

    The mean over a batch is thus the mean over prompts, however many pairs each has. Ties are left out, or with
    ``label_ties`` labelled one half (as the authors label them). A pair of equal segments is left out in any case: it
    states no preference, and with a bias below 1 its likelihood would be trained on.
    """

    label_ties: bool = False

    reads: ClassVar[Reads] = {"completions": ("prompt", "completions")}
    columns: ClassVar[frozenset[str]] = frozenset({"ranks", "same_as"})

    def __call__(self, outputs: Mapping[str, Tensor], batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the loss of each ranking (B,); ``outputs["completions"]`` is (B, K, T), rows may have fewer."""
        mask, ranks, same = batch.mask["completions"], batch.columns["ranks"], batch.columns["same_as"]
        exists = mask.sum(-1) > 0
        i, j = pairs(exists)
        tied = ranks[:, i] == ranks[:, j]
        told = exists[:, i] & exists[:, j] & (same[:, i] != same[:, j])
        scores, logps = self.scores(outputs, batch, "completions"), masked(outputs["completions"], mask).sum(-1)
        first = self.contrast(scores[:, i], scores[:, j], logps[:, i], mask[:, i])
        second = self.contrast(scores[:, j], scores[:, i], logps[:, j], mask[:, j])
        wins = torch.where(tied, 0.5, (ranks[:, i] < ranks[:, j]).to(scores.dtype))  # of the first
        loss = _mean(wins * first + (1 - wins) * second, told if self.label_ties else told & ~tied)
        strict, gap = told & ~tied, (2 * wins - 1) * (scores[:, i] - scores[:, j])
        metrics = {
            "accuracy": torch.where(strict.any(1), _mean(accuracy(gap), strict), 0.5),
            "margin": _mean(gap, strict),
            "logps_chosen": _mean(torch.where(wins > 0.5, logps[:, i], logps[:, j]), strict),
            "logps_rejected": _mean(torch.where(wins > 0.5, logps[:, j], logps[:, i]), strict),
        }
        return loss, {name: value.detach() for name, value in metrics.items()}


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    """Return the mean (B,) over the pairs that count; 0 where none does."""
    mean: Tensor = (values * counted).sum(1) / counted.sum(1).clamp(min=1)
    return mean
