"""The table of dropped rows and degenerate inputs, on the page and as a file."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from alignarena.reports import tables
from alignarena.reports.page import write_report
from alignarena.results.dropped import counted
from alignarena.results.frame import load_results
from alignarena.results.store import RunFolder

MET = {"completions": 100, "unfinished completions": 7, "rows to train on": 60}


def run_with_counts(run_folders: ModuleType, path: Path) -> RunFolder:
    """A run of sft and dpo over two seeds; dpo has a stage that counted, and one that it asked for twice."""
    run: RunFolder = run_folders.quickstart(path, methods=("sft", "dpo"), seeds=(0, 1))
    stage = {"verb": "fit", "stage": "fit DPOLoss", "key": "k", "hit": False, "ledger": {}}
    for seed in (0, 1):
        counting = {**stage, "met": MET, "dropped": {"identical completions": 2 + seed}}
        run.write_cell("dpo", seed, budget={**run_folders.budget("dpo"), "stages": [counting, counting]})
    return run


def test_counts_are_summed_over_seeds_and_stages_counted_once(run_folders: ModuleType, tmp_path: Path) -> None:
    run = run_with_counts(run_folders, tmp_path / "run")
    assert counted([run.read_cell("dpo", seed) for seed in (0, 1)]) == [
        ("dropped from training: identical completions", 5, 120, "rows to train on"),
        ("unfinished completions", 14, 200, "completions"),
    ]
    assert counted([run.read_cell("sft", 0)]) is None  # its stages say nothing of counts
    assert counted([]) == []


def test_the_report_shows_what_was_dropped(run_folders: ModuleType, tmp_path: Path) -> None:
    run = run_with_counts(run_folders, tmp_path / "run")
    table = tables.degenerate(load_results(run.path))
    assert table.rows[0] == ["dpo", "dropped from training: identical completions", 5, 120, "rows to train on"]
    assert table.caption == "Run before this was counted: sft."
    page = write_report([run.path])
    assert "Dropped rows and degenerate inputs" in page.read_text(encoding="utf-8")
    csv = (page.parent / "tables" / "degenerate.csv").read_text()
    assert "dpo,unfinished completions,14,200,completions" in csv


def test_a_run_that_met_nothing_says_so(run_folders: ModuleType, tmp_path: Path) -> None:
    run = run_folders.quickstart(tmp_path / "run", methods=("sft",))
    run.write_cell("sft", 0, budget={**run_folders.budget("sft"), "stages": []})
    text = write_report([run.path]).read_text(encoding="utf-8")
    assert "Nothing was dropped, and nothing degenerate was counted." in text
