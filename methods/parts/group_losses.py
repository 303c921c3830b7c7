"""Losses of methods that compare the completions of one prompt with each other instead of asking a value model.

Shapes: B completions, T tokens (padded on the right), rows of one prompt sharing a number ``group`` (B,). Log-probs are
in nats, fp32. Nothing on padding is ever read. Metrics carry no gradient.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from alignarena.core.contract import Batch
from alignarena.methods.parts.advantages import masked
from alignarena.methods.parts.groups import group_spread, group_sums, leave_one_out, standardised_in_groups
from alignarena.methods.parts.losses import DPOLoss, Per, Reads


def observed(batch: Batch, state: dict[str, float], missing_eos_penalty: float) -> tuple[Tensor, Tensor]:
    """Return the penalised score and the KL estimate k1 of each completion (B,); log what a phase came to.

    ``objective/informative`` is the share of prompts whose penalised scores are not all equal.
    """
    unfinished = ~batch.finished["completion"].bool()
    score, group = batch.columns["score"], batch.columns["group"]
    penalised = score - missing_eos_penalty * unfinished
    kl = masked(batch.old["completion"] - batch.reference["completion"], batch.mask["completion"]).sum(1)
    share = 1 / group_sums(torch.ones_like(score), group)  # of its prompt
    state["objective/kl"] = float(kl.mean())
    state["objective/scores"] = float(score.mean())
    state["objective/finished"] = 1.0 - float(unfinished.float().mean())
    state["objective/informative"] = float((share * (group_spread(penalised, group) > 0)).sum() / share.sum())
    return penalised, kl


def clipped_surrogate(ratio: Tensor, advantage: Tensor, cliprange: float) -> tuple[Tensor, Tensor]:
    """Return PPO's clipped policy loss (arXiv:1707.06347) and 1 where the clip is active, both of the ratio's shape."""
    unclipped = -advantage * ratio
    clipped = -advantage * ratio.clamp(1 - cliprange, 1 + cliprange)
    return torch.maximum(unclipped, clipped), (clipped > unclipped).to(ratio.dtype)


@dataclass(frozen=True)
class RLOOLoss:
    """REINFORCE leave-one-out (Ahmadian et al., 2024; arXiv:2402.14740).

    A completion is one action. Its reward is ``score - kl_coef KL``, KL estimated by the log-ratio to the reference
    model summed over tokens (k1); its baseline is the mean reward of the prompt's other completions. The loss is
    ``-advantage ratio``, clipped, where the ratio of the completion's probabilities is exactly 1 on the first step of
    a phase: there the gradient is REINFORCE's.
    """

    kl_coef: float = 0.05  # reward lost per nat of KL to the reference model
    cliprange: float = 0.2  # the ratio stops paying beyond 1 +- this
    missing_eos_penalty: float = 1.0  # taken off the score of a completion that does not finish

    reads: ClassVar[Reads] = {"completion": ("prompt", "completion")}
    columns: ClassVar[frozenset[str]] = frozenset({"score", "group"})
    needs: ClassVar[frozenset[str]] = frozenset({"reference", "old"})
    per: ClassVar[Per] = "row"

    @torch.no_grad()
    def prepare(self, batch: Batch, state: dict[str, float]) -> dict[str, Tensor]:
        """Return ``advantages`` (B,) of a phase's rollouts; log the objective into ``state``."""
        score, kl = observed(batch, state, self.missing_eos_penalty)
        reward = score - self.kl_coef * kl
        state["objective/rlhf_reward"] = float(reward.mean())
        return {"advantages": leave_one_out(reward, batch.columns["group"])}

    def __call__(self, outputs: Mapping[str, Tensor], batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the loss of each completion (B,); ``outputs["completion"]`` is (B, T)."""
        logratio = masked(outputs["completion"] - batch.old["completion"], batch.mask["completion"]).sum(1)
        ratio = logratio.exp()
        loss, active = clipped_surrogate(ratio, batch.prepared["advantages"], self.cliprange)
        metrics = {"ratio": ratio, "clipfrac": active, "approxkl": 0.5 * logratio.square()}
        return loss, {name: value.detach() for name, value in metrics.items()}


@dataclass(frozen=True)
class GRPOLoss:
    """Group relative policy optimisation (Shao et al., 2024; arXiv:2402.03300, eq. 3 and 4).

    All tokens of a completion share its score, standardised among the prompt's completions, as advantage. The loss is
    PPO's clipped one plus ``kl_coef`` times the KL estimate k3, both averaged over the completion's tokens. Samples
    held fixed, the gradient of k3 is that of KL(reference || policy), not of the KL it estimates.
    """

    kl_coef: float = 0.04  # weight of the KL term, against advantages of standard deviation 1
    cliprange: float = 0.2  # a token's ratio stops paying beyond 1 +- this
    missing_eos_penalty: float = 1.0  # taken off the score of a completion that does not finish

    reads: ClassVar[Reads] = {"completion": ("prompt", "completion")}
    columns: ClassVar[frozenset[str]] = frozenset({"score", "group"})
    needs: ClassVar[frozenset[str]] = frozenset({"reference", "old"})
    per: ClassVar[Per] = "row"

    @torch.no_grad()
    def prepare(self, batch: Batch, state: dict[str, float]) -> dict[str, Tensor]:
        """Return ``advantages`` (B,) of a phase's rollouts; log the objective into ``state``."""
        score, _ = observed(batch, state, self.missing_eos_penalty)
        return {"advantages": standardised_in_groups(score, batch.columns["group"])}

    def __call__(self, outputs: Mapping[str, Tensor], batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the loss of each completion (B,), a mean over its tokens, as are the metrics."""
        mask, logps = batch.mask["completion"], outputs["completion"]
        logratio = masked(logps - batch.old["completion"], mask)
        ratio = logratio.exp()
        policy_loss, active = clipped_surrogate(ratio, batch.prepared["advantages"][:, None], self.cliprange)
        to_reference = masked(batch.reference["completion"] - logps, mask)
        each = {
            "policy_loss": policy_loss,
            "k3": to_reference.exp() - 1 - to_reference,
            "ratio": ratio,
            "clipfrac": active,
            "approxkl": 0.5 * logratio.square(),
        }
        means = {name: masked(value, mask).sum(1) / mask.sum(1).clamp(min=1) for name, value in each.items()}
        loss = means["policy_loss"] + self.kl_coef * means["k3"]
        return loss, {name: value.detach() for name, value in means.items()}


@dataclass(frozen=True)
class OnlineDPOLoss(DPOLoss):
    """DPO's loss on pairs that the policy has just drawn (Guo et al., 2024; arXiv:2402.04792)."""

    @property
    def columns(self) -> frozenset[str]:
        """Return the mean score of a pair, and the probability if labels are soft."""
        return super().columns | {"score"}

    def prepare(self, batch: Batch, state: dict[str, float]) -> dict[str, Tensor]:
        """Log how many pairs of a phase say something, and their mean score, into ``state``."""
        state["objective/pairs"] = float(len(batch.columns["score"]))
        state["objective/scores"] = float(batch.columns["score"].mean())
        return {}
