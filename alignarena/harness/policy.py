"""Policies of the harness: the base model with one adapter, or with none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignarena.core.contract import Rows, Sampling
from alignarena.harness.backbone import Backbone
from alignarena.harness.weights import BASE

if TYPE_CHECKING:
    from alignarena.harness.lab import HarnessLab


@dataclass(frozen=True)
class AdapterPolicy:
    """A trainable policy: base model + LoRA adapter. ``folder`` holds the adapter; ``None`` is the base itself."""

    digest: str
    folder: Path | None = None

    def load(self, backbone: Backbone) -> str:
        """Bring the adapter into memory and return its name there."""
        if self.folder is None:
            return BASE
        backbone.load(self.digest, self.folder)
        return self.digest

    def complete(self, lab: Any, rows: Rows, n: int, *, stream: str, sampling: Sampling) -> Rows:
        """Sample n completions a prompt."""
        return _of_harness(lab).sample_adapter(self, rows, n, stream=stream, sampling=sampling)

    def logps(self, lab: Any, rows: Rows) -> Rows:
        """Return the rows with the log-probs of their completion tokens."""
        return _of_harness(lab).adapter_logps(self, rows)


@dataclass(frozen=True)
class LivePolicy(AdapterPolicy):
    """The policy inside a fit: its weights are in memory only, and change."""

    adapter: str = BASE

    def load(self, backbone: Backbone) -> str:
        """Return the name of the adapter being trained."""
        return self.adapter


def _of_harness(lab: Any) -> HarnessLab:
    return lab  # type: ignore[no-any-return]
