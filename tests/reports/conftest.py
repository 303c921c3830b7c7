from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from matplotlib import pyplot

from alignarena.results.store import RunFolder


@pytest.fixture(autouse=True)
def _figures_closed() -> Iterator[None]:
    """Close what a test drew and only looked at."""
    yield
    pyplot.close("all")


@pytest.fixture(scope="session")
def run_folders() -> ModuleType:
    """The module that fabricates run folders."""
    spec = importlib.util.spec_from_file_location("run_folders", Path(__file__).parents[1] / "run_folders.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def finished_run(run_folders: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run with one seed; read only."""
    return run_folders.quickstart(tmp_path_factory.mktemp("runs") / "quickstart")
