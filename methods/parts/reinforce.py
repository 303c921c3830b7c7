"""The loss of REINFORCE with a learned baseline: a pure function from log-probs of rollouts to one loss a row.

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
from alignarena.methods.parts.advantages import explained_variance, gae, masked, per_token_rewards
from alignarena.methods.parts.losses import Per, Reads


@dataclass(frozen=True)
class ReinforceLoss:
    """REINFORCE with a value baseline (Lee et al., 2023; arXiv:2309.00267, appendix; Williams, 1992).

    ``-sum_t log pi(y_t) sg(Z_t - V_t) + sum_t (Z_t - V_t)^2``, sg being no gradient. The objective is
    ``(1 - kl_coef) score - kl_coef KL``, so the return of a token without discount is
    ``Z_t = (1 - kl_coef) score - kl_coef sum_(s >= t) (old_s - reference_s)``. The KL to go stands in the return, not
    as a term of its own: samples held fixed, the gradient of a token's log-ratio has expectation 0 (k1) and that of k3
    is another divergence's, whereas here it is the KL's own, and the baseline takes variance off it as well. At the
    optimum Z_t is the same for every completion of a prefix: with the values right, no sample has a gradient.
    """

    kl_coef: float = 0.05  # from 0 to below 1: weight of the KL to the reference model, taken from the score's
    missing_eos_penalty: float = 1.0  # taken off the score of a completion that does not finish

    reads: ClassVar[Reads] = {"completion": ("prompt", "completion")}
    columns: ClassVar[frozenset[str]] = frozenset({"score"})
    needs: ClassVar[frozenset[str]] = frozenset({"reference", "old", "values"})
    per: ClassVar[Per] = "row"

    def __post_init__(self) -> None:
        """Check the weight of the KL.

        Raises:
            BadInput: It leaves nothing of the score.
        """
        if not 0 <= self.kl_coef < 1:
            raise BadInput(f"reinforce: kl_coef must be at least 0 and below 1, got {self.kl_coef}")

    @torch.no_grad()
    def prepare(self, batch: Batch, state: dict[str, float]) -> dict[str, Tensor]:
        """Return ``returns`` (B, T) of a phase's rollouts; log the objective into ``state``."""
        mask, old, reference = batch.mask["completion"], batch.old["completion"], batch.reference["completion"]
        unfinished = ~batch.finished["completion"].bool()
        score = batch.columns["score"] - self.missing_eos_penalty * unfinished
        rewards = per_token_rewards((1 - self.kl_coef) * score, old, reference, mask, self.kl_coef)
        returns = masked(gae(rewards, torch.zeros_like(rewards), mask, gamma=1.0, lam=1.0)[1], mask)
        state["objective/kl"] = float(masked(old - reference, mask).sum(1).mean())
        state["objective/scores"] = float(batch.columns["score"].mean())
        state["objective/finished"] = 1.0 - float(unfinished.float().mean())
        state["objective/rlhf_reward"] = float(rewards.sum(1).mean())
        state["objective/explained_variance"] = explained_variance(returns, batch.old_values["completion"], mask)
        return {"returns": returns}

    def __call__(self, outputs: Mapping[str, Tensor], batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the loss of each completion (B,), summed over tokens, as are the metrics."""
        mask = batch.mask["completion"]
        logps, values = masked(outputs["completion"], mask), masked(batch.values["completion"], mask)
        error = masked(batch.prepared["returns"], mask) - values
        policy_loss, value_loss = -logps * error.detach(), error.square()
        metrics = {
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "approxkl": 0.5 * masked(outputs["completion"] - batch.old["completion"], mask).square(),
        }
        return (policy_loss + value_loss).sum(1), {name: value.detach().sum(1) for name, value in metrics.items()}
