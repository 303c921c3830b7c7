from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_model

from alignarena.benchmarks.perf.bench import Bench, Sizes
from alignarena.benchmarks.perf.terms import Settings
from alignarena.benchmarks.perf.work import Comparison, Work
from alignarena.core.seeds import generator
from alignarena.harness.tokens import Tokens

SIZES = Sizes(
    pairs=2, rankings=2, rollout_prompts=2, rollout_tokens=4, online_prompts=2, online_tokens=4, n=2,
    max_length=64, max_prompt=32, full_rate=3e-3, lora_rate=1e-2, matrix=64,
)  # fmt: skip


def comparison(draw: np.random.Generator, k: int) -> Comparison:
    """Return random words of the tiny model, every completion ended."""

    def ids(low: int, high: int) -> tuple[int, ...]:
        return tuple(int(i) for i in draw.integers(len(tiny_model.SPECIAL), 300, size=int(draw.integers(low, high))))

    return Comparison(ids(4, 12), tuple((*ids(3, 9), 1) for _ in range(k)))


def work(k: int, count: int = 24) -> Work:
    draw = generator(0, "perf work", k)
    return Work(tuple(comparison(draw, k) for _ in range(count)), f"random words, {k} completions")


@pytest.fixture(scope="package", autouse=True)
def imports_set_aside() -> Iterator[None]:
    """Spare the benchmark's collections of garbage the objects of all imported libraries: half a second each."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def new_bench(tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Bench]:
    """Makes runs on the tiny model in fp32, their settings chosen already."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")  # TRL sets it, for all later tests of the process

    def make(**more: Any) -> Bench:
        tried = (Settings(), {"sdpa, one micro-batch": 0.1})
        chosen = dict.fromkeys(("dpo", "sft", "reward", "online"), tried)
        tokens = Tokens(tiny_model.tokenizer(), tiny_model.config(tiny_model_dir))
        options = {"sizes": SIZES, "precision": "fp32", "chosen": chosen, "repeats": 2, **more}
        return Bench(
            model=str(tiny_model_dir), folder=tmp_path, dialogues=work(2), quickstart=work(4), tokens=tokens, **options
        )

    return make
