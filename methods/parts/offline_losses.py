"""Losses of preferences beside DPO's: KTO's of single completions, SimPO's and ORPO's of pairs without a reference.

Shapes: B rows, K completions of other prompts, T completion tokens (padded on the right). Log-probs are in nats, fp32.
Nothing on padding is ever read. Metrics carry no gradient.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from alignarena.core.contract import NOTHING, Batch
from alignarena.methods.parts.advantages import masked
from alignarena.methods.parts.losses import PAIR, OfflineLoss, PairLoss, Per, Reads, accuracy

_LEAST_NATS = 1e-6  # a completion this certain has infinite odds in fp32


def mean_logps(outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
    """Return the mean log-prob a token (B,) of both completions of a pair, in nats."""
    return {
        side: masked(outputs[side], batch.mask[side]).sum(1) / batch.mask[side].sum(1).clamp(min=1) for side in PAIR
    }


@dataclass(frozen=True)
class KTOLoss(OfflineLoss):
    """Kahneman-Tversky optimisation (Ethayarajh et al., 2024; arXiv:2402.01306, eq. 7 and 8).

    With r the log-ratio of a completion to the reference model, ``desirable_weight (1 - sigmoid(beta (r - z0)))`` if it
    is desirable and ``undesirable_weight (1 - sigmoid(beta (z0 - r)))`` if not. The column ``desirable`` is the
    probability that it is; the loss is the mean over it. The reference point z0 stands for the KL to the reference
    model: the mean log-ratio of K completions of other prompts, at least 0. No gradient goes through it.
    """

    beta: float = 0.1  # larger keeps the policy closer to the reference model
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0

    reads: ClassVar[Reads] = {"completion": ("prompt", "completion"), "mismatched": ("prompt", "mismatched")}
    columns: ClassVar[frozenset[str]] = frozenset({"desirable"})
    needs: ClassVar[frozenset[str]] = frozenset({"reference"})
    per: ClassVar[Per] = "row"

    def __call__(self, outputs: Mapping[str, Tensor], batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the loss of each row (B,); outputs are (B, T) and (B, K, T), rows may have fewer than K."""
        desirable = batch.columns["desirable"]
        ratio = _logratio(outputs, batch, "completion")
        point = _reference_point(outputs, batch)
        gain = self.beta * (ratio - point)
        loss = self.desirable_weight * desirable * torch.sigmoid(-gain)
        loss = loss + self.undesirable_weight * (1 - desirable) * torch.sigmoid(gain)
        sign = 2 * desirable - 1
        metrics = {
            "accuracy": accuracy(sign * gain),
            "margin": 2 * sign * self.beta * ratio,
            "kl": point,
            "logps": masked(outputs["completion"], batch.mask["completion"]).sum(1),
        }
        return loss, {name: value.detach() for name, value in metrics.items()}


def _logratio(outputs: Mapping[str, Tensor], batch: Batch, key: str) -> Tensor:
    """Return the summed log-ratio to the reference model of each completion, in nats."""
    total: Tensor = masked(outputs[key] - batch.reference[key], batch.mask[key]).sum(-1)
    return total


def _reference_point(outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
    """Return z0 (B,) in nats."""
    exists = batch.mask["mismatched"].sum(-1) > 0
    ratios = _logratio(outputs, batch, "mismatched").detach()
    point: Tensor = (ratios.sum(1) / exists.sum(1).clamp(min=1)).clamp(min=0)
    return point


@dataclass(frozen=True)
class SimPOLoss(PairLoss):
    """Simple preference optimisation (Meng et al., 2024; arXiv:2405.14734, eq. 6).

    ``-log sigmoid(s(chosen) - s(rejected) - gamma)``, with s = beta times the mean log-prob a token: the length of a
    completion does not count, and there is no reference model.
    """

    beta: float = 2.0  # larger: a smaller difference of log-probs expresses the same preference
    gamma: float = 1.0  # by how much the chosen score must exceed the rejected one

    reads: ClassVar[Reads] = PAIR
    needs: ClassVar[frozenset[str]] = NOTHING
    per: ClassVar[Per] = "row"

    def __call__(self, outputs: Mapping[str, Tensor], batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the loss of each pair (B,); both outputs are log-probs (B, T), T may differ between them."""
        logps = mean_logps(outputs, batch)
        margin = self.beta * (logps["chosen"] - logps["rejected"])
        loss = self.expected(-logsigmoid(margin - self.gamma), -logsigmoid(-margin - self.gamma), batch)
        metrics = {"accuracy": accuracy(margin), "margin": margin, **_means(logps)}
        return loss, {name: value.detach() for name, value in metrics.items()}


@dataclass(frozen=True)
class ORPOLoss(PairLoss):
    """Odds ratio preference optimisation (Hong et al., 2024; arXiv:2403.07691, eq. 6 and 7).

    ``-m(chosen) - odds_coef log sigmoid(o(chosen) - o(rejected))``, with m the mean log-prob a token and
    o = m - log(1 - exp(m)) the log-odds of exp(m). The first term is SFT on the chosen completion; there is no
    reference model.
    """

    odds_coef: float = 0.1  # the paper's lambda: weight of the preference beside SFT

    reads: ClassVar[Reads] = PAIR
    needs: ClassVar[frozenset[str]] = NOTHING
    per: ClassVar[Per] = "row"

    def __call__(self, outputs: Mapping[str, Tensor], batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the loss of each pair (B,); both outputs are log-probs (B, T), T may differ between them."""
        logps = mean_logps(outputs, batch)
        gap = _log_odds(logps["chosen"]) - _log_odds(logps["rejected"])
        as_labelled = -logps["chosen"] - self.odds_coef * logsigmoid(gap)
        flipped = -logps["rejected"] - self.odds_coef * logsigmoid(-gap)
        loss = self.expected(as_labelled, flipped, batch)
        metrics = {"accuracy": accuracy(gap), "margin": gap, **_means(logps)}
        return loss, {name: value.detach() for name, value in metrics.items()}


def _log_odds(logps: Tensor) -> Tensor:
    certain_at_most = logps.clamp(max=-_LEAST_NATS)
    return certain_at_most - torch.log(-torch.expm1(certain_at_most))


def _means(logps: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"mean_logps_{side}": value for side, value in logps.items()}
