from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class TinyRun:
    """A suite file, the folder of its run, and the cache that run filled."""

    suite: str
    folder: Path
    cache: Path


@pytest.fixture(scope="session")
def tiny_suite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The quickstart suite on a model of word pairs."""
    import tiny_suite

    folder = tmp_path_factory.mktemp("tiny_suite")
    return tiny_suite.write_suite(folder / "tiny.yaml", tiny_suite.save_model(folder / "model"))


@pytest.fixture(scope="session")
def finished_tiny_run(tiny_suite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """A run of all six methods that nothing disturbed, with its report; read only."""
    import alignarena

    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALIGNARENA_CACHE", str(folder / "cache"))
        alignarena.run(str(tiny_suite_file), out=folder / "run")
    return TinyRun(str(tiny_suite_file), folder / "run", folder / "cache")


@pytest.fixture
def copied_run(
    finished_tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> TinyRun:
    """A copy of the finished run to change, and of its cache, which is in use."""
    shutil.copytree(finished_tiny_run.folder, tmp_path / "run")
    shutil.copytree(finished_tiny_run.cache, tmp_path / "cache")
    monkeypatch.setenv("ALIGNARENA_CACHE", str(tmp_path / "cache"))
    return TinyRun(finished_tiny_run.suite, tmp_path / "run", tmp_path / "cache")


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Forbids loading a model, from the call on."""

    def refuse(*_: object) -> None:
        pytest.fail("a model was loaded")

    def forbid() -> None:
        monkeypatch.setattr("alignarena.benchmarks.sweep.Backbone", refuse)

    return forbid
