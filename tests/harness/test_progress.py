"""What people see of a stage."""

import io
from typing import Any

import pytest
from rich.console import Console

from alignarena.harness import progress
from alignarena.harness.progress import StageProgress


def shown(terminal: bool) -> tuple[StageProgress, io.StringIO]:
    text = io.StringIO()
    made = StageProgress()
    made.console = Console(file=text, force_terminal=terminal, width=120)
    made.cell = "dpo/0"
    return made, text


def test_without_a_terminal_a_long_stage_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    stages, text = shown(terminal=False)
    clock = iter([0.0, 2.0, 2.0, 2.0])
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(clock))
    with stages.stage("fit DPOLoss", 10) as stage:
        stage.advance(1, 500)
    assert text.getvalue() == "dpo/0 fit DPOLoss: 2 s, 250 tokens/s\n"


def test_a_short_stage_says_nothing() -> None:
    stages, text = shown(terminal=False)
    with stages.stage("score", 1):
        pass
    assert text.getvalue() == ""


def test_on_a_terminal_nested_stages_show_bars_and_leave_none() -> None:
    stages, text = shown(terminal=True)
    with pytest.raises(KeyboardInterrupt), stages.stage("fit PPOLoss", 2) as outer:
        outer.advance(1, 100)
        with stages.stage("sample rollout 0", 4) as inner:
            inner.advance(2, 50)
            assert stages._bars is not None and len(stages._bars.tasks) == 2
            assert stages._bars.tasks[1].percentage == 50
            stages._bars.refresh()
        assert len(stages._bars.tasks) == 1
        raise KeyboardInterrupt
    assert stages._bars is None
    assert "fit PPOLoss" in text.getvalue() and "tokens/s" in text.getvalue()


def test_a_silent_process_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with StageProgress(silent=True).stage("fit", 1) as stage:
        stage.advance(1, 10)
    assert capsys.readouterr() == ("", "")


def test_a_stage_is_noted_now_and_then_for_who_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[dict[str, Any]] = []
    stages, _ = shown(terminal=False)
    stages.note = noted.append
    clock = iter([0.0, 1.0, 2.5, 3.0])  # when each step ends
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with stages.stage("fit DPOLoss", 3) as stage:
        for _ in range(3):
            stage.advance(1, 10)
    with stages.stage("score", 1) as stage:
        stage.advance(1, 10)
    told = [(one["stage"], one["done"], one["total"]) for one in noted]
    assert told == [("fit DPOLoss", 1, 3), ("fit DPOLoss", 3, 3)]
    assert all(one["tokens_per_second"] > 0 for one in noted)
