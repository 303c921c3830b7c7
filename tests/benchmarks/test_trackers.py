"""Curves for trackers: the lines of metrics.jsonl, no login, and no part in what makes two runs comparable."""

from __future__ import annotations

import importlib.machinery
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from alignarena.benchmarks import trackers
from alignarena.benchmarks.suite import load_suite, suite_digest
from alignarena.benchmarks.sweep import run
from alignarena.benchmarks.trackers import check_tracker, report_curves
from alignarena.core.errors import BadInput
from alignarena.core.files import read_jsonl

LINES = [
    {"fit": 0, "loss_name": "SFTLoss", "step": 0, "loss": 2.0, "unknown": None},
    {"fit": 1, "loss_name": "DPOLoss", "step": 0, "loss": 0.7, "note": "text", "done": True, "worst": float("inf")},
]
CURVES = [
    (0, {"SFTLoss/fit": 0, "SFTLoss/step": 0, "SFTLoss/loss": 2.0}),
    (1, {"DPOLoss/fit": 1, "DPOLoss/step": 0, "DPOLoss/loss": 0.7}),
]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a module in place of one that may not be installed."""

    def put(name: str, **members: Any) -> None:
        module = ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)

    return put


class _Run:
    """A run of wandb or trackio."""

    def __init__(self, **given: Any) -> None:
        self.given, self.logged, self.finished = given, list[tuple[int, dict[str, float]]](), False

    def log(self, values: dict[str, float], step: int) -> None:
        self.logged.append((step, values))

    def finish(self) -> None:
        self.finished = True


def _started(fake: Callable[..., None], name: str) -> list[_Run]:
    runs: list[_Run] = []

    def init(**given: Any) -> _Run:
        runs.append(_Run(**given))
        return runs[-1]

    fake(name, init=init)
    return runs


def test_wandb_is_offline_unless_told_otherwise(
    fake: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    runs = _started(fake, "wandb")
    check_tracker("wandb")
    report_curves("wandb", "exact/limit", "dpo/0", LINES, tmp_path)
    monkeypatch.setenv("WANDB_MODE", "online")
    report_curves("wandb", "exact/limit", "dpo/0", [], tmp_path)
    first, second = runs
    assert (first.given["project"], first.given["name"], first.given["mode"]) == ("exact-limit", "dpo/0", "offline")
    assert first.given["dir"] == str(tmp_path) and second.given["mode"] == "online"
    assert first.logged == CURVES and first.finished


def test_trackio_keeps_its_own_place(fake: Callable[..., None], tmp_path: Path) -> None:
    runs = _started(fake, "trackio")
    report_curves("trackio", "quickstart", "ppo/1", LINES, tmp_path)
    assert runs[0].given == {"project": "quickstart", "name": "ppo/1"} and runs[0].logged == CURVES
    assert runs[0].finished


def test_a_tracker_that_fails_costs_a_line(
    fake: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def init(**_: Any) -> None:
        raise ConnectionError("no network")

    fake("wandb", init=init)
    report_curves("wandb", "quickstart", "ppo/1", LINES, tmp_path)
    assert capsys.readouterr().err == "ppo/1: curves not sent to wandb: no network\n"


def test_tensorboard_writes_into_the_run_folder_anew(fake: Callable[..., None], tmp_path: Path) -> None:
    scalars: list[tuple[str, float, int]] = []

    class SummaryWriter:
        def __init__(self, folder: str) -> None:
            Path(folder).mkdir(parents=True)
            (Path(folder) / "events").write_text("")

        def add_scalar(self, name: str, value: float, global_step: int) -> None:
            scalars.append((name, value, global_step))

        def flush(self) -> None: ...

        def close(self) -> None: ...

    fake("torch.utils.tensorboard", SummaryWriter=SummaryWriter)
    sys.modules["torch.utils"].tensorboard = sys.modules["torch.utils.tensorboard"]  # type: ignore[attr-defined]
    try:
        stale = tmp_path / "tensorboard" / "dpo" / "0" / "events.of.before"
        stale.parent.mkdir(parents=True)
        stale.write_text("")
        report_curves("tensorboard", "quickstart", "dpo/0", LINES, tmp_path)
    finally:
        del sys.modules["torch.utils"].tensorboard  # type: ignore[attr-defined]
    assert scalars == [(name, value, step) for step, values in CURVES for name, value in values.items()]
    assert [path.name for path in stale.parent.iterdir()] == ["events"]


def test_a_missing_tracker_is_said_before_anything_runs(
    tiny_suite_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match="wandb is not installed; pip install wandb"):
        run(str(tiny_suite_file), out=tmp_path / "run", set={"report_to": "wandb"})
    assert not (tmp_path / "run").exists()
    check_tracker("none")
    with pytest.raises(BadInput, match="report_to: 'mlflow' is not one of 'none', 'trackio'"):
        load_suite(str(tiny_suite_file), {"report_to": "mlflow"})


def test_a_run_is_the_same_whatever_its_curves_are_sent_to(
    copied_run: Any, fake: Callable[..., None]
) -> None:
    plain, sent = load_suite(copied_run.suite), load_suite(copied_run.suite, {"report_to": "trackio"})
    assert sent.report_to == "trackio" and suite_digest(plain) == suite_digest(sent)
    runs = _started(fake, "trackio")
    (copied_run.folder / "dpo" / "0" / "DONE").unlink()
    before = read_jsonl(copied_run.folder / "dpo" / "0" / "metrics.jsonl")
    run(copied_run.suite, out=copied_run.folder, set={"report_to": "trackio"}, jobs=1)
    assert [one.given["name"] for one in runs] == ["dpo/0"]  # the others are done, of the same digest
    assert [step for step, _ in runs[0].logged] == list(range(len(before)))
    logged = [values[f"{row['loss_name']}/loss"] for row, (_, values) in zip(before, runs[0].logged, strict=True)]
    assert logged == [row["loss"] for row in before]
