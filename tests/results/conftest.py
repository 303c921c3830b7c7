from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from alignarena.results.store import RunFolder


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
