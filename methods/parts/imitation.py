"""Imitation of what is preferred: losses of chosen completions, and as many epochs as a number of tokens buys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from alignarena.core.contract import NOTHING, Batch, Lab, Loss, Rows, Schedule
from alignarena.methods.parts.advantages import masked
from alignarena.methods.parts.losses import PAIR, PairLoss, Per, Reads, SFTLoss


def for_tokens(schedule: Schedule, trained_tokens: int, rows: Rows, loss: Loss, lab: Lab) -> Schedule:
    """Return a schedule whose epochs train on a number of tokens as nearly as whole epochs can, at least one."""
    epochs = round(trained_tokens / lab.tokens(rows, loss))
    return replace(schedule, num_train_epochs=max(1, epochs))


@dataclass(frozen=True)
class ChosenLoss(SFTLoss):
    """Negative log-likelihood of the chosen completion of a pair; the rejected one is not read."""

    reads: ClassVar[Reads] = {"completion": ("prompt", "chosen")}


@dataclass(frozen=True)
class PreferredLoss(PairLoss):
    """Negative log-likelihood (nats a completion) of the preferred completion of a pair, expected over soft labels."""

    reads: ClassVar[Reads] = PAIR
    needs: ClassVar[frozenset[str]] = NOTHING
    per: ClassVar[Per] = "row"

    def __call__(self, outputs: Mapping[str, Tensor], batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the loss of each pair (B,); both outputs are log-probs (B, T), T may differ between them."""
        loss = {side: -masked(outputs[side], batch.mask[side]).sum(1) for side in PAIR}
        return self.expected(loss["chosen"], loss["rejected"], batch), {}
