"""Llama 2's reward: a model of helpfulness and one of harmlessness made one, whitened where it is reinforced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from alignarena.core.contract import Batch, Lab, PreferenceStream, Rows, Scorer, Task
from alignarena.core.feedback import Piecewise, centred
from alignarena.methods.parts.advantages import whiten
from alignarena.methods.parts.policy_gradient import PPOLoss
from alignarena.methods.parts.reward_modelling import RewardModelling

AXES = ("helpful", "harmless")


def axes_of(preferences: Mapping[str, Rows | PreferenceStream]) -> tuple[str, ...]:
    """Return the axes that a task's reward is made of; asking for a name makes no preferences, and costs nothing."""
    return AXES if set(AXES) <= set(preferences) else ("overall",)


@dataclass(frozen=True)
class TwoRewardModels(RewardModelling):
    """A reward model an axis, combined piece by piece; where a task has one axis only, one reward model.

    The combination compares a score with a threshold in log-odds, so both are centred on SFT samples and keep the unit
    that comparisons give them; the one of a single axis is standardised, as every method's is.
    """

    def fit(self, task: Task, lab: Lab) -> Scorer:
        """Fit what the task has preferences for."""
        if axes_of(task.preferences) != AXES:
            return super().fit(task, lab)
        helpful, harmless = (self._centred(axis, task, lab) for axis in AXES)
        return Piecewise(helpful, harmless)

    def _centred(self, axis: str, task: Task, lab: Lab) -> Scorer:
        return replace(self, axis=axis).fitted(task, lab, centred)


@dataclass(frozen=True)
class WhitenedPPOLoss(PPOLoss):
    """PPO on scores of mean 0 and standard deviation 1 over the completions of a phase (arXiv:2307.09288, 3.2.3).

    One whitening for scores of two reward models: only it makes their scale one that ``kl_coef`` means something on.
    It takes place before the penalties for KL and for not finishing. Scores that are all equal are not scaled.
    """

    @torch.no_grad()
    def prepare(self, batch: Batch, state: dict[str, float]) -> dict[str, Tensor]:
        """Return what PPO does of the whitened scores; what is logged as ``objective/scores`` are the raw ones."""
        raw = batch.columns["score"]
        whitened = whiten(raw[:, None], torch.ones_like(raw)[:, None])[:, 0]
        prepared = super().prepare(replace(batch, columns={**batch.columns, "score": whitened}), state)
        state["objective/scores"] = float(raw.mean())
        return prepared
