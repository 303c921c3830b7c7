"""Checkpoints of a fit: weights (of its best epoch too), optimiser, controller, ledger, log.

A kill loses a minute, or more where a checkpoint takes long to write: writing them is a hundredth of the time at most.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from alignarena.harness.backbone import Backbone
from alignarena.harness.cache import publish

INTERVAL = 45.0  # seconds between checkpoints at least
SHARE = 0.01  # of the time, that writing them may take


@dataclass(frozen=True)
class Snapshot:
    """Weights and scalar head of a variant, on the CPU and as they are.

    Not as a policy is saved: full fine-tuning trains in a finer precision than it stores.
    """

    weights: dict[str, Tensor]
    head: dict[str, Tensor] | None

    @classmethod
    def of(cls, backbone: Backbone, name: str, copy: bool = False) -> Snapshot:
        """Take a variant as it is now; without a copy, training goes on changing what lies on the CPU already."""
        head = backbone.heads[name].state_dict() if name in backbone.heads else None
        return cls(_on_cpu(backbone.weights.state(name), copy), None if head is None else _on_cpu(head, copy))

    def put(self, backbone: Backbone, name: str) -> None:
        """Replace the weights of a variant, and its head."""
        backbone.weights.set_state(name, self.weights)
        if self.head is not None:
            backbone.heads[name].load_state_dict(self.head)

    def write(self, folder: Path) -> None:
        """Write into a folder that is not there yet."""
        folder.mkdir(parents=True)
        save_file(self.weights, folder / "weights.safetensors")
        if self.head is not None:
            save_file(self.head, folder / "head.safetensors")

    @classmethod
    def read(cls, folder: Path) -> Snapshot:
        """Read from a folder."""
        head = folder / "head.safetensors"
        return cls(load_file(folder / "weights.safetensors"), load_file(head) if head.is_file() else None)


class Checkpoint:
    """The newest state of one fit, in ``FOLDER/state``."""

    def __init__(self, folder: Path, backbone: Backbone, adapters: list[str], optimizer: torch.optim.Optimizer) -> None:
        self.folder, self.backbone, self.adapters, self.optimizer = folder, backbone, adapters, optimizer
        self._written, self._took = time.monotonic(), 0.0

    @property
    def due(self) -> bool:
        """Tell whether a checkpoint should be written at the next possible moment."""
        waited = time.monotonic() - self._written >= max(INTERVAL, self._took / SHARE)
        return waited and self.backbone.accelerator.is_main_process

    def write(self, progress: dict[str, Any]) -> None:
        """Replace the state on disk; ``progress`` is plain values but for ``best``, a :class:`Snapshot` or ``None``."""
        started = time.monotonic()
        new, old = self.folder / f".new-{time.monotonic_ns()}", self.folder / "state"
        for i, adapter in enumerate(self.adapters):
            Snapshot.of(self.backbone, adapter).write(new / str(i))
        best: Snapshot | None = progress["best"]
        if best is not None:
            best.write(new / "best")
        save_file(_flat(self.optimizer), new / "optimizer.safetensors")
        (new / "progress.json").write_text(json.dumps({**progress, "best": best is not None}))
        previous = self.folder / ".old"
        if old.is_dir():
            shutil.rmtree(previous, ignore_errors=True)
            old.rename(previous)  # a kill between the two renames leaves the older state to go on from
        publish(new, old)
        shutil.rmtree(previous, ignore_errors=True)
        self._written = time.monotonic()
        self._took = self._written - started

    def read(self) -> dict[str, Any] | None:
        """Put the stored state back and return its progress, or ``None`` where there is none."""
        stored = (self.folder / "state", self.folder / ".old")
        folder = next((f for f in stored if (f / "progress.json").is_file()), None)
        if folder is None:
            return None
        for i, adapter in enumerate(self.adapters):
            Snapshot.read(folder / str(i)).put(self.backbone, adapter)
        _unflat(self.optimizer, load_file(folder / "optimizer.safetensors"))
        progress: dict[str, Any] = json.loads((folder / "progress.json").read_text())
        progress["best"] = Snapshot.read(folder / "best") if progress["best"] else None
        return progress


def _on_cpu(state: dict[str, Tensor], copy: bool) -> dict[str, Tensor]:
    return {name: value.detach().contiguous().to("cpu", copy=copy) for name, value in state.items()}


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _flat(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{i}.{name}": value.detach().contiguous().cpu()
        for i, parameter in enumerate(_parameters(optimizer))
        for name, value in optimizer.state.get(parameter, {}).items()
    }


def _unflat(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    parameters = _parameters(optimizer)
    for key, value in tensors.items():
        i, _, name = key.partition(".")
        device = "cpu" if name == "step" and not optimizer.param_groups[0].get("fused") else parameters[int(i)].device
        optimizer.state[parameters[int(i)]][name] = value.to(device)
