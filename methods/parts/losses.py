"""Losses of demonstrations and of pairs: pure functions from log-probs to one loss a row.

Shapes: B rows, T completion tokens (padded on the right). Log-probs are in nats, fp32.
Nothing on padding is ever read. Metrics carry no gradient.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from alignarena.core.contract import NOTHING, Batch
from alignarena.methods.parts.advantages import masked

Reads = Mapping[str, tuple[str, str]]
Per = Literal["row", "token"]
PAIR: Reads = {"chosen": ("prompt", "chosen"), "rejected": ("prompt", "rejected")}


class OfflineLoss:
    """A loss that has nothing to compute before its first epoch."""

    def prepare(self, batch: Batch, state: dict[str, float]) -> dict[str, Tensor]:
        """Return nothing."""
        return {}


def accuracy(gap: Tensor) -> Tensor:
    """Return 1 where the gap has the right sign, 0 where it has the wrong one and 1/2 where it is 0."""
    return (torch.sign(gap) + 1) / 2


@dataclass(frozen=True)
class SFTLoss(OfflineLoss):
    """Negative log-likelihood of the completion tokens; the prompt is not trained on."""

    reads: ClassVar[Reads] = {"completion": ("prompt", "completion")}
    columns: ClassVar[frozenset[str]] = NOTHING
    needs: ClassVar[frozenset[str]] = NOTHING
    per: ClassVar[Per] = "token"

    def __call__(self, outputs: Mapping[str, Tensor], batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return minus the summed log-prob of each completion (B,); ``outputs["completion"]`` is (B, T)."""
        return -masked(outputs["completion"], batch.mask["completion"]).sum(1), {}


@dataclass(frozen=True)
class PairLoss(OfflineLoss):
    """A loss of pairs whose labels may be soft: the mean over who is preferred."""

    soft: bool = field(default=False, kw_only=True)  # whether rows have a probability that the chosen one is preferred

    @property
    def columns(self) -> frozenset[str]:
        """Return the probability, if labels are soft."""
        return frozenset({"probability"}) if self.soft else NOTHING

    def expected(self, as_labelled: Tensor, flipped: Tensor, batch: Batch) -> Tensor:
        """Weigh the losses (B,) of a pair as labelled and of the same pair the other way round."""
        if not self.soft:
            return as_labelled
        probability = batch.columns["probability"]
        mean: Tensor = probability * as_labelled + (1 - probability) * flipped
        return mean


def logratios(outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
    """Return the summed log-ratio (B,) in nats of both completions of a pair to the reference model."""
    return {side: masked(outputs[side] - batch.reference[side], batch.mask[side]).sum(1) for side in PAIR}


@dataclass(frozen=True)
class DPOLoss(PairLoss):
    """Direct preference optimisation (Rafailov et al., 2023; arXiv:2305.18290, eq. 7).

    ``-log sigmoid(beta h)``, with h the log-ratio of the chosen completion to the reference model minus that of the
    rejected one, log-probs summed over tokens. With ``label_smoothing`` e (conservative DPO):
    ``-(1 - e) log sigmoid(beta h) - e log sigmoid(-beta h)``, least where sigmoid(beta h) = 1 - e. ``reference_free``
    puts log-probs in the place of log-ratios.
    """

    beta: float = 0.1  # larger keeps the policy closer to the reference model
    label_smoothing: float = 0.0  # assumed share of flipped preferences
    reference_free: bool = False  # no reference model

    reads: ClassVar[Reads] = PAIR
    per: ClassVar[Per] = "row"

    @property
    def needs(self) -> frozenset[str]:
        """Return the reference model, unless it is left out."""
        return NOTHING if self.reference_free else frozenset({"reference"})

    def __call__(self, outputs: Mapping[str, Tensor], batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the loss of each pair (B,); both outputs are log-probs (B, T), T may differ between them."""
        logps = {side: masked(outputs[side], batch.mask[side]).sum(1) for side in PAIR}
        ratios = logps if self.reference_free else logratios(outputs, batch)
        rewards = {side: self.beta * ratio for side, ratio in ratios.items()}
        margin = rewards["chosen"] - rewards["rejected"]
        right, wrong = -logsigmoid(margin), -logsigmoid(-margin)
        share = self.label_smoothing
        loss = self.expected((1 - share) * right + share * wrong, (1 - share) * wrong + share * right, batch)
        metrics = {
            "accuracy": accuracy(margin),
            "margin": margin,
            "rewards_chosen": rewards["chosen"],
            "rewards_rejected": rewards["rejected"],
            "logps_chosen": logps["chosen"],
        }
        return loss, {name: value.detach() for name, value in metrics.items()}


@dataclass(frozen=True)
class IPOLoss(PairLoss):
    """Identity preference optimisation (Azar et al., 2023; arXiv:2310.12036, eq. 17).

    ``(h - 1 / (2 beta))^2``, with h as in DPO: a finite aim, so that preferences without noise do not drive the policy
    ever further from the reference model.
    """

    beta: float = 0.1  # the paper's tau: larger keeps the policy closer to the reference model

    reads: ClassVar[Reads] = PAIR
    needs: ClassVar[frozenset[str]] = frozenset({"reference"})
    per: ClassVar[Per] = "row"

    def __call__(self, outputs: Mapping[str, Tensor], batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the loss of each pair (B,); both outputs are log-probs (B, T), T may differ between them."""
        ratios = logratios(outputs, batch)
        gap, aim = ratios["chosen"] - ratios["rejected"], 1 / (2 * self.beta)
        loss = self.expected((gap - aim).square(), (gap + aim).square(), batch)
        metrics = {"accuracy": accuracy(gap), "margin": self.beta * gap, "logratio_chosen": ratios["chosen"]}
        return loss, {name: value.detach() for name, value in metrics.items()}
