"""Reward models of the harness: a policy's backbone with an adapter and a scalar head of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignarena.core.contract import Rows
from alignarena.harness.backbone import Backbone


@dataclass(frozen=True)
class RewardModel:
    """A learned scorer, read at the last token of a completion. Its scores are fixed up to a constant a prompt."""

    digest: str
    folder: Path
    lineage: frozenset[str]

    def load(self, backbone: Backbone) -> str:
        """Bring adapter and head into memory and return their name there."""
        backbone.load(self.digest, self.folder)
        return self.digest

    def score(self, rows: Rows, lab: Any) -> list[float]:
        """Return one score a row."""
        return lab.adapter_scores(self, rows)  # type: ignore[no-any-return]
