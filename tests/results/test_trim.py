from __future__ import annotations

from pathlib import Path

import exact_folders
import pandas as pd
import pytest

from alignarena.core.errors import BadInput
from alignarena.core.files import write_json
from alignarena.results.cells import SCORE_COLUMNS
from alignarena.results.exact import exact_table
from alignarena.results.frame import STUDY, load_results
from alignarena.results.store import RunFolder
from alignarena.results.trim import trim


def test_a_trimmed_run_gives_the_same_leaderboard(finished_run: RunFolder, tmp_path: Path) -> None:
    finished_run.write_results_parquet()
    small = trim(finished_run.path, tmp_path / finished_run.path.name)
    assert not list(small.rglob("scores.jsonl")) and not (small / "report").exists()
    kept, whole = (folder.read_cell("base", 0) for folder in (RunFolder(small), finished_run))
    clusters = {row["prompt_id"]: row["cluster"] for row in whole.completions}
    assert kept.scores == [  # nulls are still null
        {name: row[name] for name in SCORE_COLUMNS} | {"cluster": clusters[row["prompt_id"]]} for row in whole.scores
    ]
    assert load_results(str(small)).leaderboard().equals(load_results(str(finished_run.path)).leaderboard())


def test_figures_without_completions_keep_their_clusters(finished_run: RunFolder, tmp_path: Path) -> None:
    finished_run.write_results_parquet()
    small = trim(finished_run.path, tmp_path / finished_run.path.name, figures=True)
    assert RunFolder(small).frame().equals(finished_run.frame())
    board = load_results(str(small)).leaderboard()[["gold_reward_low", "gold_vs_sft_low", "verdict_vs_sft"]]
    assert board.equals(load_results(str(finished_run.path)).leaderboard()[list(board.columns)])


def test_only_a_run_folder_can_be_trimmed(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="not a run folder"):
        trim(tmp_path, tmp_path / "small")


def test_a_study_is_trimmed_variant_by_variant_and_figures_need_no_completions(tmp_path: Path) -> None:
    study = tmp_path / "study"
    for name, setting in (("limit", "limit"), ("budget", "budget")):
        exact_folders.exact(study / name, setting=setting).write_results_parquet()
    write_json(study / STUDY, {"name": "study", "variants": ["limit", "budget"]})
    small = trim(study, tmp_path / "small", figures=True)
    assert not list(small.rglob("completions.jsonl")) and not list(small.rglob("metrics.jsonl"))
    pd.testing.assert_frame_equal(exact_table(load_results(small)), exact_table(load_results(study)))
