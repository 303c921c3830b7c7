from __future__ import annotations

import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from alignarena.core.errors import BadInput
from alignarena.core.files import write_json
from alignarena.results.frame import load_results
from alignarena.results.leaderboard import COLUMNS
from alignarena.results.store import RunFolder

BINDING = (
    "method, track, seeds, gold_reward, gold_reward_low, gold_reward_high, gold_vs_sft, gold_vs_sft_low, "
    "gold_vs_sft_high, on_topic, proxy_reward, win_rate, win_rate_low, win_rate_high, win_rate_length_controlled, kl, "
    "mean_length, inference_tokens, sampled_tokens, trained_tokens, labels, labeler_calls, seconds, peak_memory_mib, "
    "verdict_vs_sft, status, finish_rate, topic_rate, sentiment_given_both, second_sentiment, disagreement, "
    "information, not_worse_than_sft, win_rate_length_controlled_low, win_rate_length_controlled_high, "
    "heldout_reward, ai_judge, heldout_reward_low, heldout_reward_high, ai_judge_low, ai_judge_high, "
    "heldout_reward_accuracy, heldout_reward_accuracy_low, heldout_reward_accuracy_high, "
    "heldout_reward_error_correlation, ai_judge_agreement, ai_judge_agreement_low, ai_judge_agreement_high"
)


def rows(folder: RunFolder) -> dict[str, dict[str, object]]:
    return {row["method"]: row for row in load_results(folder.path).leaderboard().to_dict("records")}


def test_columns_and_order_are_the_promised_ones(finished_run: RunFolder, run_folders: ModuleType) -> None:
    board = load_results(finished_run.path).leaderboard()
    assert list(board.columns) == COLUMNS == BINDING.split(", ")
    assert list(board["method"]) == list(run_folders.METHODS)


def test_gold_is_the_mean_of_the_scores_and_the_product_of_its_parts(
    finished_run: RunFolder, run_folders: ModuleType
) -> None:
    board = rows(finished_run)
    for method in run_folders.METHODS:
        scores = [row["value"] for row in run_folders.sampled(method, 0)[1] if row["metric"] == "gold"]
        row = board[method]
        assert row["gold_reward"] == pytest.approx(np.mean(scores))
        assert row["gold_reward"] == pytest.approx(row["on_topic"] * row["sentiment_given_both"])  # type: ignore[operator]
        assert row["gold_reward_low"] < row["gold_reward"] < row["gold_reward_high"]  # type: ignore[operator]
        if method != "sft":
            difference = row["gold_reward"] - board["sft"]["gold_reward"]  # type: ignore[operator]
            assert row["gold_vs_sft"] == pytest.approx(difference)


def test_verdicts_name_the_unit(finished_run: RunFolder) -> None:
    verdicts = {method: row["verdict_vs_sft"] for method, row in rows(finished_run).items()}
    assert verdicts == {
        "base": "worse (checkpoint, 1 seed)",
        "sft": "baseline",
        "best_of_n": "better (checkpoint, 1 seed)",
        "dpo": "better (checkpoint, 1 seed)",
        "ppo": "better (checkpoint, 1 seed)",
        "rejection_sampling": "cannot tell (checkpoint, 1 seed)",
    }


def test_win_rate_counts_ties_half_and_costs_are_charged_not_spent(finished_run: RunFolder) -> None:
    board = rows(finished_run)
    assert board["sft"]["win_rate"] == 0.5
    assert (board["dpo"]["trained_tokens"], board["dpo"]["seconds"]) == (12_000, 53.0)
    assert board["dpo"]["peak_memory_mib"] == 1500.0
    assert math.isnan(board["dpo"]["win_rate_length_controlled"])  # type: ignore[arg-type]


def test_a_failed_cell_is_a_row_without_numbers(tmp_path: Path, run_folders: ModuleType) -> None:
    folder = run_folders.quickstart(tmp_path / "r", failed=("dpo",), methods=("sft", "dpo", "ppo"))
    row = rows(folder)["dpo"]
    assert (row["status"], row["verdict_vs_sft"], row["seeds"]) == ("FAILED", "no verdict (FAILED)", 0)
    text = ("method", "track", "seeds", "status", "verdict_vs_sft", "information", "not_worse_than_sft")
    assert all(math.isnan(row[column]) for column in COLUMNS if column not in text)  # type: ignore[arg-type]


def test_a_run_that_has_not_converged_gets_no_verdict(tmp_path: Path, run_folders: ModuleType) -> None:
    folder = run_folders.start(tmp_path / "r", ("sft", "ppo"), (0,))
    run_folders.write_cell(folder, "sft", 0)
    run_folders.write_cell(folder, "ppo", 0)
    assert rows(folder)["ppo"]["status"] == "DONE"
    folder.write_cell("ppo", 0, metrics=run_folders.training("ppo", lambda step: 0.02 * step))
    row = rows(folder)["ppo"]
    assert (row["status"], row["verdict_vs_sft"]) == ("not converged", "no verdict (not converged)")
    assert row["gold_vs_sft"] > 0  # type: ignore[operator]
    assert row["not_worse_than_sft"] == "not worse (margin 0.05)"  # that is no ranking
    found = load_results(folder.path).compare("sft", "ppo")
    assert found.winner == "no verdict (ppo not converged)"
    assert (found.to_dict()["outcome"], found.to_dict()["verdict"]) == ("no verdict", found.winner)
    assert load_results(folder.path).compare("sft", "sft").winner == "cannot tell"


def test_not_worse_is_a_claim_of_its_own(tmp_path: Path, run_folders: ModuleType) -> None:
    folder = run_folders.quickstart(tmp_path / "r")
    found = {method: row["not_worse_than_sft"] for method, row in rows(folder).items()}
    assert found.pop("base") == "worse (margin 0.05)"
    assert found.pop("sft") == "baseline"
    assert set(found.values()) == {"not worse (margin 0.05)"}  # rejection sampling too, though it cannot be told apart
    folder.write_suite({**folder.suite, "evaluation": {"n": 2, "margin": 0.001}})
    strict = {method: row["not_worse_than_sft"] for method, row in rows(folder).items()}
    assert strict["rejection_sampling"] == "cannot tell (margin 0.001)"
    assert strict["ppo"] == "not worse (margin 0.001)"


def test_a_method_that_is_told_in_words_is_in_the_other_track(tmp_path: Path, run_folders: ModuleType) -> None:
    board = rows(run_folders.quickstart(tmp_path / "r", methods=("sft", "dpo", "hir")))
    found = {method: row["information"] for method, row in board.items()}
    assert found == {"sft": "preference-only", "dpo": "preference-only", "hir": "instruction-informed"}


def test_a_killed_run_has_a_row_for_every_method(tmp_path: Path, run_folders: ModuleType) -> None:
    folder = run_folders.start(tmp_path / "r", ("sft", "dpo", "ppo"), (0,))
    run_folders.write_cell(folder, "dpo", 0)
    folder.mark("sft", 0, "RUNNING")
    board = rows(folder)
    assert [board[method]["status"] for method in ("sft", "dpo", "ppo")] == ["RUNNING", "DONE", "WAITING"]
    assert board["dpo"]["verdict_vs_sft"] == "no verdict (not scored)"


def test_several_seeds_make_a_claim_about_the_method(tmp_path: Path, run_folders: ModuleType) -> None:
    folder = run_folders.quickstart(tmp_path / "r", seeds=(0, 1, 2), methods=("sft", "ppo"))
    results = load_results(folder.path)
    found = results.compare("ppo", "sft")
    means = [
        np.mean([row["value"] for row in run_folders.sampled("ppo", seed)[1] if row["metric"] == "gold"])
        - np.mean([row["value"] for row in run_folders.sampled("sft", seed)[1] if row["metric"] == "gold"])
        for seed in (0, 1, 2)
    ]
    assert found.unit == "method, 3 seeds"
    assert found.difference == pytest.approx(np.mean(means))
    # at least what the t-interval over many seeds would have, and no more than that over three, topics apart
    error = np.std(means, ddof=1) / math.sqrt(3)
    assert 1.96 * error < found.high - found.difference < 1.2 * 4.302653 * error


def test_compare_is_antisymmetric_and_names_the_winner(finished_run: RunFolder) -> None:
    results = load_results(finished_run.path)
    forth, back = results.compare("ppo", "dpo"), results.compare("dpo", "ppo")
    assert (forth.winner, back.winner) == ("ppo better", "ppo better")
    assert forth.difference == pytest.approx(-back.difference)
    assert results.compare("rejection_sampling", "sft").winner == "cannot tell"
    assert forth.to_dict()["unit"] == "checkpoint, 1 seed"
    assert forth.minimum_detectable_difference > 0
    assert results.compare("sft", "sft").p_value == 1.0


def test_unknown_names_get_the_nearest(finished_run: RunFolder, tmp_path: Path) -> None:
    results = load_results(finished_run.path)
    with pytest.raises(BadInput, match="did you mean 'ppo'"):
        results.compare("pppo", "sft")
    with pytest.raises(BadInput, match="did you mean 'gold'"):
        results.compare("ppo", "sft", "golds")
    with pytest.raises(BadInput, match="not a run folder"):
        load_results(tmp_path)
    with pytest.raises(BadInput, match="no run folder given"):
        load_results()


def test_comparing_an_unfinished_method_says_so(tmp_path: Path, run_folders: ModuleType) -> None:
    folder = run_folders.quickstart(tmp_path / "r", failed=("dpo",), methods=("sft", "dpo"))
    with pytest.raises(BadInput, match="no finished seed"):
        load_results(folder.path).compare("dpo", "sft")


def test_without_gold_the_verdict_rests_on_the_win_rate(tmp_path: Path, run_folders: ModuleType) -> None:
    folder = run_folders.human_preferences(tmp_path / "hh")
    board = rows(folder)
    assert board["dpo"]["verdict_vs_sft"] == "better (checkpoint, 1 seed)"
    assert math.isnan(board["dpo"]["gold_vs_sft"])  # type: ignore[arg-type]
    wins = load_results(folder.path).compare("dpo", "sft", "win")
    assert wins.difference == pytest.approx(board["dpo"]["win_rate"] - 0.5)  # type: ignore[operator]
    cell = folder.read_cell("sft", 0)  # a baseline that was not judged against itself ties with itself
    folder.write_cell("sft", 0, scores=[row for row in cell.scores if row["metric"] != "win"])
    assert load_results(folder.path).compare("dpo", "sft", "win").difference == pytest.approx(wins.difference)


def test_runs_of_one_suite_are_merged_and_runs_of_several_kept_apart(tmp_path: Path, run_folders: ModuleType) -> None:
    first = run_folders.quickstart(tmp_path / "first", methods=("sft", "dpo"))
    second = run_folders.quickstart(tmp_path / "second", methods=("sft", "ppo"), seeds=(0, 1))
    merged = load_results(first.path, second.path)
    assert merged.methods == ["sft", "dpo", "ppo"]
    assert list(merged.entry("sft").cells) == [0, 1]
    other = run_folders.human_preferences(tmp_path / "hh")
    apart = load_results(first.path, other.path)
    assert apart.methods == ["first/sft", "first/dpo", "hh/sft", "hh/dpo"]
    verdicts = dict(zip(apart.methods, apart.leaderboard()["verdict_vs_sft"], strict=True))
    assert verdicts["first/sft"] == verdicts["hh/sft"] == "baseline"
    assert verdicts["hh/dpo"].startswith("better")


def test_a_method_of_other_settings_is_another_row(tmp_path: Path, run_folders: ModuleType) -> None:
    first, second, third = (run_folders.quickstart(tmp_path / name, methods=("sft", "dpo")) for name in "abc")
    suite = second.suite
    second.write_suite({**suite, "methods": {**suite["methods"], "dpo": {"beta": 0.3}}})
    third.write_suite({**suite, "methods": {"sft": None}})  # shares no method that differs: it joins the first it fits
    results = load_results(first.path, second.path, third.path)
    assert results.methods == ["a/sft", "a/dpo", "b/sft", "b/dpo"]
    assert results.entry("b/dpo").baseline == "b/sft"
    alone = run_folders.quickstart(tmp_path / "d", methods=("dpo",))
    alone.write_suite({**suite, "methods": {"dpo": {"beta": 0.3}}})
    results = load_results(first.path, alone.path)
    assert results.methods == ["a/sft", "a/dpo", "d/dpo"] and results.entry("d/dpo").baseline == "a/sft"
    assert "no verdict" not in list(results.leaderboard()["verdict_vs_sft"])[2]


def test_seeds_of_two_settings_are_no_result(tmp_path: Path, run_folders: ModuleType) -> None:
    folder = run_folders.quickstart(tmp_path / "r", methods=("sft", "dpo"), seeds=(0, 1))
    assert load_results(folder.path).entry("dpo").status == "DONE"
    folder.write_cell("dpo", 1, config={"beta": 0.3})  # a kill came before seed 0 was run again
    assert load_results(folder.path).entry("dpo").status == "WAITING"
    assert rows(folder)["dpo"]["verdict_vs_sft"] == "no verdict (WAITING)"


def test_a_studys_folder_stands_for_its_variants_in_order(tmp_path: Path, run_folders: ModuleType) -> None:
    for name in ("strong", "weak"):
        folder = run_folders.quickstart(tmp_path / name, methods=("sft", "dpo"))
        folder.write_suite({**folder.suite, "name": f"mine/{name}"})
    write_json(tmp_path / "study.json", {"name": "mine", "variants": ["weak", "strong", "not-begun"]})
    results = load_results(tmp_path)
    assert results.methods == ["weak/sft", "weak/dpo", "strong/sft", "strong/dpo"]  # of one digest, but not one run
    assert results.given == [tmp_path] and [folder.name for folder in results.folders] == ["weak", "strong"]
    assert results.compare("weak/dpo", "strong/dpo").difference == 0.0
    assert load_results(tmp_path / "weak").methods == ["sft", "dpo"]
    assert load_results(tmp_path / "weak", tmp_path).methods == results.methods  # the same cells twice are one
    write_json(tmp_path / "study.json", {"variants": "weak"})
    with pytest.raises(BadInput, match=r"study.json: expected an object with a list of variants"):
        load_results(tmp_path)


def test_length_controlled_win_rate_with_enough_prompts(tmp_path: Path, run_folders: ModuleType) -> None:
    run_folders.TOPICS, before = 160, run_folders.TOPICS
    try:
        board = rows(run_folders.quickstart(tmp_path / "r", methods=("sft", "ppo")))
    finally:
        run_folders.TOPICS = before
    assert math.isnan(board["sft"]["win_rate_length_controlled"])  # type: ignore[arg-type]  # never longer than itself
    assert board["ppo"]["win_rate_length_controlled"] > 0.6  # type: ignore[operator]
