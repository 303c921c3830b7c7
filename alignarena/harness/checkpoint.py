"""Checkpoints of a fit: weights, optimiser, controller, ledger and log; a kill loses a minute."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from alignarena.harness.backbone import Backbone
from alignarena.harness.cache import publish

INTERVAL = 45.0  # seconds between checkpoints


class Checkpoint:
    """The newest state of one fit, in ``FOLDER/state``."""

    def __init__(self, folder: Path, backbone: Backbone, adapters: list[str], optimizer: torch.optim.Optimizer) -> None:
        self.folder, self.backbone, self.adapters, self.optimizer = folder, backbone, adapters, optimizer
        self._written = time.monotonic()

    @property
    def due(self) -> bool:
        """Tell whether a checkpoint should be written at the next possible moment."""
        return time.monotonic() - self._written >= INTERVAL and self.backbone.accelerator.is_main_process

    def write(self, progress: dict[str, Any]) -> None:
        """Replace the state on disk."""
        new, old = self.folder / f".new-{time.monotonic_ns()}", self.folder / "state"
        for i, adapter in enumerate(self.adapters):
            folder = new / str(i)
            folder.mkdir(parents=True)
            # as they are, not as a policy is saved: full fine-tuning trains in a finer precision than it stores
            save_file(_on_cpu(self.backbone.weights.state(adapter)), folder / "weights.safetensors")
            if adapter in self.backbone.heads:
                save_file(_on_cpu(self.backbone.heads[adapter].state_dict()), folder / "head.safetensors")
        save_file(_flat(self.optimizer), new / "optimizer.safetensors")
        (new / "progress.json").write_text(json.dumps(progress))
        previous = self.folder / ".old"
        if old.is_dir():
            shutil.rmtree(previous, ignore_errors=True)
            old.rename(previous)  # a kill between the two renames leaves the older state to go on from
        publish(new, old)
        shutil.rmtree(previous, ignore_errors=True)
        self._written = time.monotonic()

    def read(self) -> dict[str, Any] | None:
        """Put the stored state back and return its progress, or ``None`` where there is none."""
        stored = (self.folder / "state", self.folder / ".old")
        folder = next((f for f in stored if (f / "progress.json").is_file()), None)
        if folder is None:
            return None
        for i, adapter in enumerate(self.adapters):
            self.backbone.weights.set_state(adapter, load_file(folder / str(i) / "weights.safetensors"))
            head = folder / str(i) / "head.safetensors"
            if head.is_file():
                self.backbone.heads[adapter].load_state_dict(load_file(head))
        _unflat(self.optimizer, load_file(folder / "optimizer.safetensors"))
        progress: dict[str, Any] = json.loads((folder / "progress.json").read_text())
        return progress


def _on_cpu(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.detach().contiguous().cpu() for name, value in state.items()}


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _flat(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    return {
        f"{i}.{name}": value.detach().contiguous().cpu()
        for i, parameter in enumerate(_parameters(optimizer))
        for name, value in optimizer.state.get(parameter, {}).items()
    }


def _unflat(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    parameters = _parameters(optimizer)
    for key, value in tensors.items():
        i, _, name = key.partition(".")
        device = "cpu" if name == "step" and not optimizer.param_groups[0].get("fused") else parameters[int(i)].device
        optimizer.state[parameters[int(i)]][name] = value.to(device)
