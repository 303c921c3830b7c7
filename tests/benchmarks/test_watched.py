"""A run notes how far it is for who watches it, and takes the notes back when its cells have ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from alignarena.benchmarks.sweep import run
from alignarena.harness import progress
from alignarena.reports.watch import look
from alignarena.results.store import RunFolder


def test_a_run_under_way_can_be_watched(copied_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, seen = RunFolder(tmp_path / "again"), list[str]()
    note = RunFolder.note_progress

    def watched(self: RunFolder, cell: str, stage: dict[str, Any]) -> None:
        note(self, cell, stage)
        seen.extend(line.text for line in look(self.path) if line.said and line.state == "RUNNING")

    monkeypatch.setattr(RunFolder, "note_progress", watched)
    monkeypatch.setattr(progress, "NOTED_EVERY", 0.0)
    monkeypatch.setenv("ALIGNARENA_CACHE", str(tmp_path / "empty"))
    run(copied_run.suite, out=folder.path, methods=["sft", "dpo"], jobs=1)
    assert any(line.startswith("shared/0: RUNNING, fit SFTLoss") for line in seen)
    assert any(line.startswith("dpo/0: RUNNING, fit DPOLoss") for line in seen)
    assert [line.state for line in look(folder.path)] == ["DONE", "DONE"]
    assert [path.name for path in (folder.path / ".progress").iterdir()] == ["shared-0.json"]
