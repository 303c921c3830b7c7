from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before any library reads it: no test calls a hub
os.environ.setdefault("OMP_NUM_THREADS", "1")  # a sweep then stays in this process, where tests watch it
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # tolerances are those of CPU arithmetic
sys.path.insert(0, str(Path(__file__).parent))  # tiny_model and toy_task are plain modules of this folder

gc.disable()  # as `core/imports.py` does in a program: until all test modules, and what they import, are there


def pytest_collection_finish() -> None:
    """Leave what was imported out of all collections."""
    gc.freeze()
    gc.enable()


if TYPE_CHECKING:
    from alignarena.core.contract import Task
    from alignarena.harness.backbone import Backbone
    from alignarena.harness.lab import HarnessLab


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random model."""
    import tiny_model

    return tiny_model.save(tmp_path_factory.mktemp("tiny_model"))


@pytest.fixture(scope="session")
def tiny_backbone(tiny_model_dir: Path) -> Backbone:
    """The tiny model, loaded in fp32."""
    import tiny_model

    from alignarena.harness.backbone import Backbone

    return Backbone(tiny_model.config(tiny_model_dir))


@pytest.fixture
def new_lab(tiny_backbone: Backbone, tmp_path: Path) -> Callable[..., HarnessLab]:
    """Makes labs of the tiny model that share one fresh cache, unless told another."""
    from alignarena.core.records import Budget
    from alignarena.harness.cache import Cache
    from alignarena.harness.lab import HarnessLab

    def make(seed: int = 0, cache: Path | None = None, **limits: Any) -> HarnessLab:
        return HarnessLab(tiny_backbone, Cache(cache or tmp_path / "cache"), seed, Budget(**limits))

    return make


@pytest.fixture(scope="session")
def toy_cell(
    tiny_backbone: Backbone, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[HarnessLab, Task]]:
    """Makes the lab and the task of a cell on the tiny model; all cells share one cache, and owe the SFT policy."""
    import toy_task

    from alignarena.core.records import Budget
    from alignarena.harness.cache import Cache
    from alignarena.harness.lab import HarnessLab

    cache = Cache(tmp_path_factory.mktemp("toy_cells"))

    def make(seed: int = 0, **limits: Any) -> tuple[HarnessLab, Task]:
        shared, lab = HarnessLab(tiny_backbone, cache, seed), HarnessLab(tiny_backbone, cache, seed, Budget(**limits))
        policy = toy_task.sft(shared)
        lab.owe(policy, shared.account.charged)
        return lab, toy_task.toy_task(lab, policy)

    return make
