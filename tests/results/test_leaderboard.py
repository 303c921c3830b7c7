"""Scores that no method optimised and judges' win rates, in the leaderboard, and how far to trust them."""

import math
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from alignarena.reports import tables
from alignarena.reports.table import csv_text
from alignarena.results.frame import Results, load_results
from alignarena.results.leaderboard import COLUMNS
from alignarena.results.store import RunFolder

METHODS = ("sft", "dpo", "ppo", "rlaif")


@pytest.fixture
def run(tmp_path: Path, run_folders: ModuleType) -> RunFolder:
    """A run whose held-out model is gold itself, and whose AI judge is always wrong and silent on rlaif."""
    folder: RunFolder = run_folders.quickstart(tmp_path / "run", methods=METHODS)
    for method in METHODS:
        scores = folder.read_cell(method, 0).scores
        gold = [row for row in scores if row["metric"] == "gold"]
        added = [{**row, "evaluator": "heldout_reward", "metric": "heldout_reward"} for row in gold]
        grades = [{**row, "value": None if method == "rlaif" else -row["value"]} for row in gold if row["sample"] == 0]
        added += [{**row, "evaluator": "ai_judge", "metric": "ai_judge"} for row in grades]
        if method not in ("sft", "rlaif"):
            added += [{**row, "evaluator": "judge_q9", "metric": "judge_q9", "value": 0.75} for row in gold]
        folder.write_cell(method, 0, scores=[*scores, *added])
    cards = {"ai_judge": {"withheld": {"rlaif/0": "it taught it"}}, "judge_q9": {"withheld": {"rlaif/0": "its own"}}}
    folder.write_json("provenance.json", {**folder.provenance, "evaluators": cards})
    return folder


def rows(results: Results) -> dict[str, dict[str, Any]]:
    return {str(row["method"]): {str(key): value for key, value in row.items()}
            for row in results.leaderboard().to_dict("records")}  # fmt: skip


def test_scores_stand_with_their_intervals_and_what_they_are_worth(run: RunFolder) -> None:
    board = rows(load_results(run.path))
    dpo, rlaif = board["dpo"], board["rlaif"]
    assert dpo["heldout_reward"] == pytest.approx(dpo["gold_reward"])
    assert dpo["heldout_reward_low"] == pytest.approx(dpo["gold_reward_low"])
    assert dpo["heldout_reward_accuracy"] == 1.0 == rlaif["heldout_reward_accuracy_low"]
    assert math.isnan(dpo["heldout_reward_error_correlation"])  # it never errs
    assert dpo["ai_judge_agreement"] == 0.0 == board["sft"]["ai_judge_agreement_high"]
    assert dpo["ai_judge_low"] < dpo["ai_judge"] < dpo["ai_judge_high"] < 0
    assert all(math.isnan(rlaif[name]) for name in ("ai_judge", "ai_judge_low", "ai_judge_agreement"))


def test_a_judge_is_a_column_of_its_own(run: RunFolder) -> None:
    results = load_results(run.path)
    own = [f"judge_q9{way}{end}" for way in ("", "_length_controlled") for end in ("", "_low", "_high")]
    assert list(results.leaderboard().columns) == COLUMNS + own
    board = rows(results)
    assert board["ppo"]["judge_q9"] == board["ppo"]["judge_q9_low"] == 0.75
    assert math.isnan(board["sft"]["judge_q9"]) and math.isnan(board["rlaif"]["judge_q9"])


def test_what_is_read_says_how_far_to_trust_it_and_why_there_is_a_dash(run: RunFolder) -> None:
    table = tables.leaderboard(load_results(run.path))
    assert "held-out reward (accuracy 1.00)" in table.headings
    place = {name: table.headings.index(name) for name in ("AI judge (agreement with gold 0.00)", "win rate by q9")}
    shown = {row[0].text: [row[i] for i in place.values()] for row in table.shown}
    assert shown["dpo"][1].text == "0.750" and shown["dpo"][0].interval.startswith("[-")
    assert [cell.reason for cell in shown["rlaif"]] == ["it taught it", "its own"]
    equal = table.headings.index("win rate by q9, equal length")
    assert {row[0].text: row[equal].reason.partition(",")[0] for row in table.shown} == {
        "sft": "SFT is what the others are compared with", "rlaif": "its own",
        "dpo": "not estimable below 300 prompts", "ppo": "not estimable below 300 prompts",
    }  # fmt: skip
    assert shown["sft"][1].reason == "SFT is what the others are compared with"
    assert "judge q9" not in tables.further(load_results(run.path)).headings
    assert "judge_q9_high" in csv_text(table).splitlines()[0]


def test_without_a_whole_sft_nobody_has_a_verdict(tmp_path: Path, run_folders: ModuleType) -> None:
    folder = run_folders.quickstart(tmp_path / "run", methods=("sft", "ppo"), seeds=(0, 1, 2))

    def said() -> list[str]:
        results = load_results(folder.path)
        row = rows(results)["ppo"]
        return [row["verdict_vs_sft"], row["not_worse_than_sft"], results.compare("ppo", "sft").winner]

    rising = run_folders.training("ppo", lambda step: 0.02 * step)
    folder.write_cell("sft", 2, metrics=rising)
    found = said()
    assert found.pop(1) == "not worse (margin 0.05)"  # that ranks nobody
    assert found == ["no verdict (sft not converged)"] * 2
    folder.fail_cell("sft", 2, "RunFailed: loss is NaN at step 3")
    assert said() == ["no verdict (sft FAILED)"] * 3
    (folder.cell_path("sft", 2) / "FAILED").unlink()
    assert said() == ["no verdict (sft WAITING)"] * 3


def test_suites_read_together_have_no_one_number(run: RunFolder, tmp_path: Path, run_folders: ModuleType) -> None:
    other = run_folders.quickstart(tmp_path / "other", methods=("sft", "dpo"))
    other.update_status(suite_digest="d2")
    results = load_results(run.path, other.path)
    board = rows(results)
    assert board["run/dpo"]["heldout_reward_accuracy"] == 1.0
    assert math.isnan(board["other/dpo"]["heldout_reward_accuracy"])
