"""Losses: pure functions from log-probs (or scores) to one loss a row.

Shapes: B rows, T completion tokens (padded on the right), K completions of a K-wise row. Log-probs are in nats, fp32.
Nothing on padding is ever read. Metrics carry no gradient.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from alignarena.core.contract import NOTHING, Batch
from alignarena.core.errors import BadInput
from alignarena.methods.parts.advantages import adaptive_kl, gae, masked, per_token_rewards, whiten

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


def pairs(exists: Tensor) -> tuple[Tensor, Tensor]:
    """Return both members of each pair of K completions, in the order of ``itertools.combinations``."""
    first, second = torch.combinations(torch.arange(exists.shape[1], device=exists.device)).unbind(1)
    return first, second


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
    ``-(1 - e) log sigmoid(beta h) - e log sigmoid(-beta h)``, least where sigmoid(beta h) = 1 - e.
    """

    beta: float = 0.1  # larger keeps the policy closer to the reference model
    label_smoothing: float = 0.0  # assumed share of flipped preferences

    reads: ClassVar[Reads] = PAIR
    needs: ClassVar[frozenset[str]] = frozenset({"reference"})
    per: ClassVar[Per] = "row"

    def __call__(self, outputs: Mapping[str, Tensor], batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the loss of each pair (B,); both outputs are log-probs (B, T), T may differ between them."""
        ratios = logratios(outputs, batch)
        margin = self.beta * (ratios["chosen"] - ratios["rejected"])
        right, wrong = -logsigmoid(margin), -logsigmoid(-margin)
        share = self.label_smoothing
        loss = self.expected((1 - share) * right + share * wrong, (1 - share) * wrong + share * right, batch)
        metrics = {
            "accuracy": accuracy(margin),
            "margin": margin,
            "rewards_chosen": self.beta * ratios["chosen"],
            "rewards_rejected": self.beta * ratios["rejected"],
            "logps_chosen": masked(outputs["chosen"], batch.mask["chosen"]).sum(1),
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


@dataclass(frozen=True)
class CPLLoss(PairLoss):
    """Contrastive preference learning (Hejna et al., 2023; arXiv:2310.13639, eq. 5).

    ``softplus(bias S(rejected) - S(chosen))``, where ``S = alpha sum_t gamma^t log pi`` is the regret preference
    model's score of a segment, t counted from the segment's first token. ``to_reference`` scores the log-ratio to the
    reference model instead (the authors' CPL-KL); with bias 1 and gamma 1 that is DPO with beta = alpha.
    """

    alpha: float = 0.1  # temperature: larger keeps the policy flatter, or closer to the reference model
    bias: float = 1.0  # the paper's lambda in (0, 1]: below 1, lowering both segments' log-probs no longer pays
    gamma: float = 1.0  # discount a token
    to_reference: bool = True
    bc_coef: float = 0.0  # weight of behaviour cloning on the preferred segment, nats a token

    reads: ClassVar[Reads] = PAIR
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

    def __call__(self, outputs: Mapping[str, Tensor], batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the loss of each pair (B,); both outputs are log-probs (B, T), T may differ between them."""
        scores = {side: self.alpha * self._discounted(outputs, batch, side) for side in PAIR}
        chosen, rejected = scores["chosen"], scores["rejected"]
        logps = {side: masked(outputs[side], batch.mask[side]).sum(1) for side in PAIR}
        cloned = {side: self.bc_coef * logps[side] / batch.mask[side].sum(1).clamp(min=1) for side in PAIR}
        as_labelled = softplus(self.bias * rejected - chosen) - cloned["chosen"]
        flipped = softplus(self.bias * chosen - rejected) - cloned["rejected"]
        loss = self.expected(as_labelled, flipped, batch)
        metrics = {
            "accuracy": accuracy(chosen - rejected),
            "margin": chosen - rejected,
            "scores_chosen": chosen,
            "logps_chosen": logps["chosen"],
            "logps_rejected": logps["rejected"],
        }
        return loss, {name: value.detach() for name, value in metrics.items()}

    def _discounted(self, outputs: Mapping[str, Tensor], batch: Batch, side: str) -> Tensor:
        """Return the discounted sum (B,) of log-probs, or of log-ratios, over the tokens of a segment."""
        mask = batch.mask[side]
        each = masked(outputs[side] - batch.reference[side] if self.to_reference else outputs[side], mask)
        total: Tensor = (each * self.gamma ** (mask.cumsum(1) - 1)).sum(1)
        return total


@dataclass(frozen=True)
class PairwiseRewardLoss(OfflineLoss):
    """Bradley-Terry loss of a reward model on pairs (Llama 2; arXiv:2307.09288, eq. 1 and 2).

    ``-log sigmoid(r_chosen - r_rejected - m)``, with m the pair's ``margin`` or 0.
    """

    margin: bool = False  # whether the rows' margin must be cleared

    reads: ClassVar[Reads] = PAIR
    needs: ClassVar[frozenset[str]] = NOTHING
    per: ClassVar[Per] = "row"

    @property
    def columns(self) -> frozenset[str]:
        """Return the margin, if it is used."""
        return frozenset({"margin"}) if self.margin else NOTHING

    def __call__(self, outputs: Mapping[str, Tensor], batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the loss of each pair (B,); both outputs are scores (B,)."""
        gap = outputs["chosen"] - outputs["rejected"]
        loss = -logsigmoid(gap - batch.columns["margin"] if self.margin else gap)
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


@dataclass(frozen=True)
class PPOLoss:
    """Proximal policy optimisation (arXiv:1707.06347) with a KL penalty in the reward (arXiv:1909.08593).

    The reward of a token is ``-kl_coef (old - reference)``; the last one also gets the completion's score. Advantages
    are by GAE over the completion's tokens. Ratios are taken at temperature 1.
    """

    kl_coef: float = 0.05  # reward lost per nat of KL to the reference model
    cliprange: float = 0.2  # the ratio stops paying beyond 1 +- this
    cliprange_value: float = 0.2  # likewise for the move of a value
    vf_coef: float = 0.1  # weight of the value loss
    gamma: float = 1.0  # discount a token
    lam: float = 0.95  # GAE: 1 is Monte Carlo
    whiten_advantages: bool = True  # mean 0 and standard deviation 1 over the valid tokens of a phase
    missing_eos_penalty: float = 1.0  # taken off the score of a completion that does not finish
    target_kl: float | None = None  # nats a completion; adapts kl_coef
    kl_horizon: int = 10_000  # completions over which kl_coef may move by 20 %

    reads: ClassVar[Reads] = {"completion": ("prompt", "completion")}
    columns: ClassVar[frozenset[str]] = frozenset({"score"})
    needs: ClassVar[frozenset[str]] = frozenset({"reference", "old", "values"})
    per: ClassVar[Per] = "token"

    @torch.no_grad()
    def prepare(self, batch: Batch, state: dict[str, float]) -> dict[str, Tensor]:
        """Return ``advantages`` and ``returns`` (B, T) of a phase's rollouts; log the objective into ``state``.

        ``state["kl_coef"]`` is the controller: what the next phase will use.
        """
        mask, old, reference = batch.mask["completion"], batch.old["completion"], batch.reference["completion"]
        kl_coef = state.get("kl_coef", self.kl_coef)
        unfinished = ~batch.finished["completion"].bool()
        score = batch.columns["score"] - self.missing_eos_penalty * unfinished
        rewards = per_token_rewards(score, old, reference, mask, kl_coef)
        advantages, returns = gae(rewards, batch.old_values["completion"], mask, self.gamma, self.lam)
        kl = float(masked(old - reference, mask).sum(1).mean())
        state["objective/kl"] = kl
        state["objective/scores"] = float(batch.columns["score"].mean())
        state["objective/finished"] = 1.0 - float(unfinished.float().mean())
        state["objective/rlhf_reward"] = float(rewards.sum(1).mean())
        state["kl_coef"] = kl_coef
        if self.target_kl is not None:
            state["kl_coef"] = adaptive_kl(kl_coef, kl, self.target_kl, len(mask), self.kl_horizon)
        return {"advantages": whiten(advantages, mask) if self.whiten_advantages else advantages, "returns": returns}

    def __call__(self, outputs: Mapping[str, Tensor], batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the loss of each completion (B,), summed over tokens, as are the metrics."""
        mask, advantages = batch.mask["completion"], batch.prepared["advantages"]
        logratio = masked(outputs["completion"] - batch.old["completion"], mask)
        ratio = logratio.exp()
        unclipped = -advantages * ratio
        clipped = -advantages * ratio.clamp(1 - self.cliprange, 1 + self.cliprange)
        policy_loss = masked(torch.maximum(unclipped, clipped), mask)
        value_loss = self._value_loss(batch, mask)
        metrics = {
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "ratio": masked(ratio, mask),
            "clipfrac": masked((clipped > unclipped).to(ratio.dtype), mask),
            "approxkl": 0.5 * logratio.square(),
        }
        loss = (policy_loss + self.vf_coef * value_loss).sum(1)
        return loss, {name: value.detach().sum(1) for name, value in metrics.items()}

    def _value_loss(self, batch: Batch, mask: Tensor) -> Tensor:
        # cleaned before it is squared: the gradient of an infinite padding would be 0 * inf
        values, old = masked(batch.values["completion"], mask), masked(batch.old_values["completion"], mask)
        returns = masked(batch.prepared["returns"], mask)
        clipped = old + (values - old).clamp(-self.cliprange_value, self.cliprange_value)
        return 0.5 * torch.maximum((values - returns).square(), (clipped - returns).square())
