"""A policy trained by one of TRL's trainers, from the rows, tokens, start and schedule that our own fits have."""

from __future__ import annotations

import gc
import json
import random
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from alignarena.core.contract import Rows
from alignarena.core.errors import BadInput
from alignarena.core.seeds import derive
from alignarena.harness.phase import POLICY
from alignarena.harness.trl_training import Training
from alignarena.harness.trl_watch import Watch


def train(backend: Any, policy: Any, rows: Rows, lab: Any, folder: Path) -> None:
    """Train a copy of a policy and write it, its curves and what was dropped, as a fit does.

    Raises:
        BadInput: There are several processes, or rows that TRL's trainers cannot read.
    """
    backbone = lab.backbone
    if backbone.accelerator.num_processes > 1:
        raise BadInput("TRL's trainers run in one process here; leave `accelerate launch` out, or these methods")
    seed = derive(lab.seed, "train_with")
    backbone.add(POLICY, like=policy.load(backbone), seed=derive(seed, "adapter") % 2**31)
    try:
        with tempfile.TemporaryDirectory() as work, _own_process(), lab.progress.stage(backend.name, 1) as stage:
            watch = Watch(lab, backend.name, stage, online=bool(backend.n))
            training = Training(backend, rows, lab, seed, Path(work), watch)
            training.run()
        backbone.save(POLICY, folder)
    finally:
        backbone.drop(POLICY)
        gc.collect()  # a trainer holds itself, and with it a model
    report = {"dropped": training.dropped, "stopped": training.watch.stopped, "loss": backend.name}
    (folder / "fit.json").write_text(json.dumps(report))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in training.watch.log))


@contextmanager
def _own_process() -> Iterator[None]:
    """Give back what TRL and transformers take over: the process's generators and accelerate's state."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*gradient_checkpointing.*", category=FutureWarning)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
            AcceleratorState._reset_state(reset_partial_state=True)
            Accelerator()
