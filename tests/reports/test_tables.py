from __future__ import annotations

import csv
import io
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console

from alignarena.reports import tables
from alignarena.reports.table import csv_text, latex, markdown
from alignarena.reports.terminal import print_leaderboard
from alignarena.results.frame import load_results
from alignarena.results.leaderboard import COLUMNS
from alignarena.results.store import RunFolder


def parsed(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_leaderboard_csv_has_every_column_and_full_precision(finished_run: RunFolder) -> None:
    results = load_results(finished_run.path)
    rows = parsed(csv_text(tables.leaderboard(results)))
    assert list(rows[0]) == COLUMNS
    board = results.leaderboard().set_index("method")
    for row in rows:
        assert float(row["gold_reward"]) == pytest.approx(board.loc[row["method"], "gold_reward"], abs=1e-6)
    sft = rows[1]
    assert (sft["gold_vs_sft"], sft["win_rate_length_controlled"], sft["labels"]) == ("", "", "458.5")


def test_markdown_and_latex_show_intervals_and_dashes(finished_run: RunFolder) -> None:
    table = tables.leaderboard(load_results(finished_run.path))
    as_markdown, as_latex = markdown(table), latex(table)
    assert "| sft | 0.422 [0.378, 0.466] | \u2013 | baseline |" in as_markdown
    assert {line.count(" | ") for line in as_markdown.splitlines()} == {len(table.headings) - 1}
    assert r"rejection\_sampling & 0.447 [0.412, 0.481]" in as_latex
    assert {line.count(" & ") for line in as_latex.splitlines() if line.endswith(r"\\")} == {len(table.headings) - 1}


def test_the_ledger_keeps_charged_and_spent_apart(finished_run: RunFolder) -> None:
    rows = parsed(csv_text(tables.budget(load_results(finished_run.path))))
    dpo = {row["account"]: row for row in rows if row["method"] == "dpo"}
    assert (dpo["charged"]["seconds"], dpo["spent"]["seconds"]) == ("53", "22")
    assert (dpo["charged"]["trained_tokens"], dpo["spent"]["trained_tokens"]) == ("12000", "0")


def test_every_metric_has_its_interval(finished_run: RunFolder) -> None:
    rows = parsed(csv_text(tables.axes(load_results(finished_run.path))))
    found = {row["metric"]: row for row in rows if row["method"] == "ppo"}
    assert {"gold", "topic", "finished", "sentiment", "second_sentiment", "kl", "win", "eos"} <= set(found)
    assert float(found["topic"]["low"]) <= float(found["topic"]["mean"]) <= float(found["topic"]["high"])
    assert (found["gold"]["prompts"], found["gold"]["completions"]) == ("80", "160")


def test_missing_numbers_say_why(tmp_path: Path, run_folders: ModuleType) -> None:
    folder = run_folders.quickstart(tmp_path / "r", failed=("dpo",), methods=("sft", "dpo", "ppo"))
    table = tables.leaderboard(load_results(folder.path))
    shown = {row[0].text: dict(zip(table.headings, row, strict=True)) for row in table.shown}
    assert shown["dpo"]["gold reward"].reason == "the run failed"
    assert shown["ppo"]["win rate, equal length"].reason.startswith("not estimable below 300 prompts")
    assert shown["sft"]["gold vs SFT"].reason == "SFT is what the others are compared with"


@pytest.mark.parametrize("width", [80, 110])
def test_the_terminal_shows_the_verdicts_and_their_unit(finished_run: RunFolder, width: int) -> None:
    console = Console(width=width, record=True, file=io.StringIO())
    print_leaderboard(load_results(finished_run.path), console)
    text = console.export_text()
    line = next(line for line in text.splitlines() if line.startswith("rejection_sampling"))
    assert "0.025 [-0.009, 0.059] cannot tell" in line
    assert line.split()[-1] == ("0.296" if width == 80 else "53")  # KL is the last column of a narrow terminal
    assert "\u2026" not in text  # nothing is cut short
    assert "claims about a checkpoint, 1 seed" in text
