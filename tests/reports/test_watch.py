"""Watching a run: what is shown of cells that are done, under way, dead or failed, and when it ends."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console

from alignarena import cli
from alignarena.core.errors import BadInput
from alignarena.core.files import write_json
from alignarena.reports import watch as module
from alignarena.reports.watch import look, watch
from alignarena.results.frame import STUDY
from alignarena.results.store import RunFolder


@pytest.fixture
def under_way(run_folders: ModuleType, tmp_path: Path) -> RunFolder:
    """sft is done, dpo runs, ppo failed, and base waits."""
    folder = run_folders.start(tmp_path / "run", ("sft", "dpo", "ppo", "base"), (0,))
    run_folders.write_cell(folder, "sft", 0)
    folder.fail_cell("ppo", 0, "RunFailed: loss is NaN \x1b[31m\nat step 3", "Traceback ...")
    folder.mark("dpo", 0, "RUNNING")
    folder.note_progress("dpo/0", {"stage": "fit DPOLoss", "done": 3.0, "total": 12, "tokens_per_second": 1234.5})
    return folder


def _lines(folder: RunFolder) -> dict[str, str]:
    return {line.name: line.text for line in look(folder.path)}


def _said(run: Path, once: bool = False) -> tuple[int, list[str]]:
    text = io.StringIO()
    status = watch(run, once, Console(file=text, width=100))
    return status, text.getvalue().splitlines()


def test_each_state_shows_what_is_known(under_way: RunFolder) -> None:
    lines = _lines(under_way)
    assert lines["dpo/0"] == "dpo/0: RUNNING, fit DPOLoss 25 %, 1,234 tokens/s"
    assert lines["base/0"] == "base/0: WAITING"
    assert lines["ppo/0"] == "ppo/0: FAILED, RunFailed: loss is NaN ␛[31m at step 3"
    steps = under_way.read_cell("sft", 0).metrics
    assert lines["sft/0"].startswith(f"sft/0: DONE, {len(steps)} steps, loss ") and lines["sft/0"].endswith(" 53 s")


def test_a_cell_that_says_nothing_for_long_may_be_dead(under_way: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    now = module.time.time()
    monkeypatch.setattr(module.time, "time", lambda: now + 900)
    assert _lines(under_way)["dpo/0"].endswith("silent for 15 min, killed?")


def test_shared_work_shows_while_it_is_made(under_way: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    under_way.note_progress("shared/0", {"stage": "fit SFTLoss", "done": 9, "total": 9, "tokens_per_second": 10.0})
    assert _lines(under_way)["shared/0"] == "shared/0: RUNNING, fit SFTLoss 100 %, 10 tokens/s"
    now = module.time.time()
    monkeypatch.setattr(module.time, "time", lambda: now + 900)
    assert "shared/0" not in _lines(under_way)


def test_a_half_written_run_shows_what_is_there(under_way: RunFolder) -> None:
    with open(under_way.path / "sft" / "0" / "metrics.jsonl", "a") as file:
        file.write('{"step": 99, "lo')
    (under_way.path / "sft" / "0" / "budget.json").unlink()
    (under_way.path / "status.json").unlink()
    lines = _lines(under_way)
    assert lines["sft/0"].endswith(", 0 s") and lines["dpo/0"] == "dpo/0: WAITING"


def test_a_failed_cell_that_runs_again_runs(under_way: RunFolder) -> None:
    under_way.mark("ppo", 0, "RUNNING")
    assert _lines(under_way)["ppo/0"] == "ppo/0: RUNNING"


def test_once_prints_and_ends_whatever_runs(under_way: RunFolder) -> None:
    status, lines = _said(under_way.path, once=True)
    assert status == 0 and lines[-1] == "4 cells: 1 RUNNING, 1 FAILED, 1 WAITING, 1 DONE" and len(lines) == 5


def test_lines_come_as_things_change_until_all_has_ended(
    under_way: RunFolder, run_folders: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = iter(["dpo", "base"])
    monkeypatch.setattr(module.time, "sleep", lambda _: run_folders.write_cell(under_way, next(turns), 0))
    status, lines = _said(under_way.path)
    assert status == 1  # ppo failed
    assert len(lines) == 4 + 1 + 1 + 1 and lines[4].startswith("dpo/0: DONE") and lines[5].startswith("base/0: DONE")
    assert lines[-1] == "4 cells: 1 FAILED, 3 DONE"


def test_a_terminal_gets_one_table_to_the_end(under_way: RunFolder, run_folders: ModuleType) -> None:
    for method in ("dpo", "base", "ppo"):
        run_folders.write_cell(under_way, method, 0)
    text = io.StringIO()
    assert watch(under_way.path, console=Console(file=text, force_terminal=True, width=100)) == 0
    assert "4 cells: 4 DONE" in text.getvalue()


def test_a_small_screen_shows_what_runs(under_way: RunFolder) -> None:
    console = Console(file=io.StringIO(), width=100)
    with console.capture() as shown:
        console.print(module._table(look(under_way.path), height=6))
    rows = [line.split() for line in shown.get().splitlines()]
    assert [row[0] for row in rows if row] == ["4", "cell", "dpo/0", "ppo/0", "and"]
    assert rows[-1][:3] == ["and", "2", "more"]


def test_a_study_has_not_ended_before_its_last_variant(run_folders: ModuleType, tmp_path: Path) -> None:
    run_folders.quickstart(tmp_path / "study" / "limit", methods=("sft",))
    write_json(tmp_path / "study" / STUDY, {"name": "study", "variants": ["limit", "budget"]})
    lines = look(tmp_path / "study")
    assert [(line.name, line.state) for line in lines] == [("limit/sft/0", "DONE"), ("budget", "WAITING")]


def test_the_command_ends_as_others_do(
    under_way: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module.time, "sleep", interrupt)
    assert cli.main(["watch", str(under_way.path)]) == 130
    assert "interrupted" in capsys.readouterr().err
    with pytest.raises(BadInput, match="not a run folder"):
        watch(under_way.path / "sft")


def test_watching_loads_no_tensor_library(under_way: RunFolder) -> None:
    code = (f"import sys; from alignarena.cli import main; main(['watch', r'{under_way.path}', '--once']);"
            "print([name for name in ('torch', 'transformers', 'matplotlib') if name in sys.modules])")  # fmt: skip
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ))
    assert ran.stdout.splitlines()[-1] == "[]"
