"""REINFORCE leave-one-out as TRL's RLOOTrainer computes it: what one online update is timed with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from alignarena.core.contract import Batch
from alignarena.methods.parts.advantages import masked
from alignarena.methods.parts.losses import Per, Reads


@dataclass(frozen=True)
class RLOOLoss:
    """Leave-one-out policy gradient over whole completions (Ahmadian et al., 2024; arXiv:2402.14740).

    The reward of a completion is its score minus ``kl_coef`` times the summed log-ratio to the reference model; its
    advantage is that reward minus the mean reward of the prompt's other completions. The loss is PPO's clipped one
    with the ratio of whole completions.
    """

    n: int  # completions a prompt; the rows of a prompt stand together
    kl_coef: float
    cliprange: float

    reads: ClassVar[Reads] = {"completion": ("prompt", "completion")}
    columns: ClassVar[frozenset[str]] = frozenset({"score"})
    needs: ClassVar[frozenset[str]] = frozenset({"reference", "old"})
    per: ClassVar[Per] = "row"

    @torch.no_grad()
    def prepare(self, batch: Batch, state: dict[str, float]) -> dict[str, Tensor]:
        """Return ``advantages`` (B,) of a phase's rollouts; log mean score and KL a token into ``state``."""
        mask, score = batch.mask["completion"], batch.columns["score"]
        kl = masked(batch.old["completion"] - batch.reference["completion"], mask).sum(1)
        rewards = (score - self.kl_coef * kl).view(-1, self.n)
        baseline = (rewards.sum(1, keepdim=True) - rewards) / (self.n - 1)
        state["score"], state["kl"] = float(score.mean()), float(kl.sum() / mask.sum())
        return {"advantages": (rewards - baseline).flatten()}

    def __call__(self, outputs: Mapping[str, Tensor], batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the loss of each completion (B,); ``outputs["completion"]`` is log-probs (B, T)."""
        advantages = batch.prepared["advantages"]
        ratio = masked(outputs["completion"] - batch.old["completion"], batch.mask["completion"]).sum(1).exp()
        clipped = ratio.clamp(1 - self.cliprange, 1 + self.cliprange)
        return -torch.minimum(ratio * advantages, clipped * advantages), {}
