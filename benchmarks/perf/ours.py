"""Our side: the trainer of the harness, one optimiser step a time, and its sampler."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignarena.benchmarks.perf.terms import SEED, Precision, Terms
from alignarena.core.contract import Experience, Loss
from alignarena.core.seeds import derive, generator
from alignarena.harness import checkpoint, trainer
from alignarena.harness.backbone import Backbone
from alignarena.harness.cache import Cache
from alignarena.harness.lab import HarnessLab
from alignarena.harness.meter import Meter, reset_peak_memory
from alignarena.harness.models import load_pretrained, resolve_model
from alignarena.harness.passes import References
from alignarena.harness.phase import Phase
from alignarena.harness.policy import LivePolicy
from alignarena.harness.progress import Stage
from alignarena.harness.weights import BASE

_PROBE = "probe"


@dataclass
class OurSide:
    """A fit under way. ``frozen_seconds`` is what its passes of the reference model took, all rows together."""

    backbone: Backbone
    experience: Experience
    loss: Loss
    terms: Terms
    folder: Path
    reads_scores: bool = False
    frozen_seconds: float = 0.0
    meter: Meter = field(default_factory=Meter)
    _open: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> OurSide:
        self._open.enter_context(patch.object(checkpoint, "INTERVAL", math.inf))  # TRL saves nothing either
        self._open.enter_context(patch.object(Phase, "freeze", self._timed(Phase.freeze)))
        self._steps: Any = self._fit().each_step(self.folder)
        self._open.callback(self.backbone.drop, trainer.POLICY)
        self._open.callback(self._steps.close)
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def step(self) -> dict[str, Any]:
        """Take one optimiser step; the first one runs the reference model over all rows as well."""
        line: dict[str, Any] = next(self._steps)
        return line

    def _fit(self) -> trainer.Fit:
        lab = HarnessLab(self.backbone, Cache(self.folder / "cache"), SEED)
        lab.memo.meter = self.meter  # as inside `lab.fit`: rollouts are drawn anew, never read from the cache
        return trainer.Fit(
            backbone=self.backbone,
            start=BASE,
            references=References(self.backbone, lab.cache, self.backbone.digest),
            experience=self.experience,
            loss=self.loss,
            schedule=self.terms.schedule,
            seed=SEED,
            phase_lab=lab,
            live=LivePolicy(digest="live", adapter=trainer.POLICY),
            meter=self.meter,
            stage=Stage(None, None),
            reads_scores=self.reads_scores,
        )

    def _timed(self, freeze: Callable[..., None]) -> Callable[..., None]:
        def timed(phase: Phase, shared: bool, state: dict[str, float]) -> None:
            start = time.perf_counter()
            freeze(phase, shared, state)
            self.frozen_seconds += time.perf_counter() - start

        return timed


def order(count: int) -> list[int]:
    """Return the order in which a fit of one epoch takes that many prompts."""
    return [int(i) for i in generator(SEED, "order", 0, 0).permutation(count)]


def first_adapter(backbone: Backbone) -> dict[str, torch.Tensor]:
    """Return the LoRA weights that a fit starts from, so that the other side can start there too."""
    backbone.add(_PROBE, BASE, seed=derive(SEED, "adapter") % 2**31)
    try:
        return {key: value.detach().clone() for key, value in backbone.weights.state(_PROBE).items()}
    finally:
        backbone.drop(_PROBE)


def first_head(backbone: Backbone) -> torch.Tensor:
    """Return the scalar head (1, D) that a fit of a reward model starts from."""
    backbone.add_head(_PROBE, seed=derive(SEED, "head") % 2**31)
    return backbone.heads.pop(_PROBE).weight.detach().clone()


def stored_start(model: str, precision: Precision, folder: Path) -> str:
    """Save the model as both sides are to load it, and return that folder.

    Our base is held in the precision of the forward pass; TRL would read finer weights from the same file, and losses
    would differ by that.
    """
    source = resolve_model(model)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    target = folder / precision
    load_pretrained(AutoModelForCausalLM, source, dtype=dtype).save_pretrained(target)
    load_pretrained(AutoTokenizer, source).save_pretrained(target)
    return str(target)


def release_memory() -> None:
    """Free the models of what is over: trainers hold themselves in cycles, gigabytes of them."""
    gc.collect()
    reset_peak_memory()


@contextmanager
def never_ending(backbone: Backbone) -> Iterator[None]:
    """Let no completion end before its last token: equal work on both sides."""
    with patch.object(backbone.tokens, "eos_id", -1):
        yield
