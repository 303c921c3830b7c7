"""Losses of policy gradients: pure functions from log-probs of rollouts to one loss a row.

Shapes: B completions, T tokens (padded on the right). Log-probs are in nats, fp32. Nothing on padding is ever read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from alignarena.core.contract import Batch
from alignarena.core.errors import BadInput
from alignarena.methods.parts.advantages import (
    adaptive_kl,
    explained_variance,
    gae,
    masked,
    per_token_rewards,
    whiten,
)
from alignarena.methods.parts.losses import Per, Reads

_ROLLOUT: Reads = {"completion": ("prompt", "completion")}
_SHOWN: Reads = {"demonstration": ("demonstration_prompt", "demonstration")}


@dataclass(frozen=True)
class PPOLoss:
    """Proximal policy optimisation (arXiv:1707.06347) with a KL penalty in the reward (arXiv:1909.08593).

    The reward of a token is ``-kl_coef (old - reference)``; the last one also gets the completion's score. Advantages
    are by GAE over the completion's tokens. Ratios are taken at temperature 1. With ``ptx_coef`` (PPO-ptx, InstructGPT;
    arXiv:2203.02155, eq. 2) each row has a demonstration, of which ``ptx_coef`` times the log-prob, summed over its
    tokens, is added to what is maximised: one demonstration beside one completion.
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
    ptx_coef: float = 0.0  # weight of the log-prob of demonstrations

    columns: ClassVar[frozenset[str]] = frozenset({"score"})
    needs: ClassVar[frozenset[str]] = frozenset({"reference", "old", "values"})
    per: ClassVar[Per] = "token"

    def __post_init__(self) -> None:
        """Check the target of the KL controller.

        Raises:
            BadInput: It is not positive.
        """
        if self.target_kl is not None and self.target_kl <= 0:
            raise BadInput(f"ppo: target_kl must be above 0 nats a completion, got {self.target_kl}")

    @property
    def reads(self) -> Reads:
        """Return the completion, whose tokens the mean is over, and the demonstration if it is imitated."""
        return {**_ROLLOUT, **_SHOWN} if self.ptx_coef else _ROLLOUT

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
        state["objective/explained_variance"] = explained_variance(returns, batch.old_values["completion"], mask)
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
        summed = {name: value.detach().sum(1) for name, value in metrics.items()}
        if not self.ptx_coef:
            return loss, summed
        shown = batch.mask["demonstration"]
        ptx_loss = -masked(outputs["demonstration"], shown).sum(1)
        # what is logged is divided by the completions' tokens: this makes it nats a token of the demonstrations
        summed["ptx_loss"] = ptx_loss.detach() / shown.sum(1).clamp(min=1) * mask.sum(1)
        return loss + self.ptx_coef * ptx_loss, summed

    def _value_loss(self, batch: Batch, mask: Tensor) -> Tensor:
        # cleaned before it is squared: the gradient of an infinite padding would be 0 * inf
        values, old = masked(batch.values["completion"], mask), masked(batch.old_values["completion"], mask)
        returns = masked(batch.prepared["returns"], mask)
        clipped = old + (values - old).clamp(-self.cliprange_value, self.cliprange_value)
        return 0.5 * torch.maximum((values - returns).square(), (clipped - returns).square())
