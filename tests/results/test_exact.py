from __future__ import annotations

import math
from pathlib import Path

import exact_folders
import numpy as np
import pytest
from exact_folders import BETA, PROMPTS, World

from alignarena.core.errors import BadInput
from alignarena.results.exact import COLUMNS, exact_summary, exact_table, frontier, setting
from alignarena.results.frame import load_results
from alignarena.results.store import RunFolder

PROMISED = (
    "method, world, seed, setting, labels, beta, reward, kl, j_efficiency, frontier_efficiency, objective_bias, "
    "learning_error, kl_from_optimum, target_kl, j_efficiency_trained, learning_error_trained, target_kl_trained, "
    "j_efficiency_target, feedback"
)


def test_a_row_a_cell_with_the_promised_columns(tmp_path: Path) -> None:
    limit = exact_folders.exact(tmp_path / "limit", setting="limit", world=3)
    budget = exact_folders.exact(tmp_path / "budget", labels=256, world=3, feedback_kind="regret")
    table = exact_table(load_results(limit.path, budget.path))
    assert list(table.columns) == COLUMNS == PROMISED.split(", ")
    assert len(table) == 2 * 2 * len(exact_folders.METHODS)
    assert list(table["method"].unique()) == list(exact_folders.METHODS)  # not FOLDER/METHOD
    assert set(zip(table["setting"], table["feedback"], strict=True)) == {("limit", "whole"), ("budget", "regret")}
    assert (table["world"] == 3).all() and (table["beta"] == BETA).all()
    assert table.loc[table["setting"] == "limit", "labels"].isna().all()
    assert set(table.loc[table["setting"] == "budget", "labels"]) == {0.0, 256.0}  # SFT needs none


def test_the_figures_obey_the_identities(tmp_path: Path) -> None:
    folder = exact_folders.exact(tmp_path / "run", seeds=(0,), errors={"dpo": 0.0})
    rows = exact_table(load_results(folder.path)).set_index("method")
    world = World(0)
    held = slice(PROMPTS)
    dpo = rows.loc["dpo"]
    assert dpo["reward"] == pytest.approx(exact_folders.mean(world.tilted(BETA), world.gold)[held].mean())
    assert (dpo["j_efficiency"], dpo["j_efficiency_trained"]) == (pytest.approx(1), pytest.approx(1))
    assert dpo["frontier_efficiency"] == pytest.approx(1, abs=2e-3)  # the curve is interpolated here
    assert (dpo["objective_bias"], dpo["learning_error"]) == (pytest.approx(0), pytest.approx(0))
    assert dpo["target_kl"] == pytest.approx(dpo["kl"])
    cpl = rows.loc["cpl"]  # J* - J = beta KL(pi || pi*)
    policy = world.policy("cpl", 16 / (16 + math.sqrt(512)), 0)
    gap = BETA * exact_folders.divergence(policy, world.tilted(BETA))[held].mean()
    best = BETA * exact_folders.divergence(world.reference, world.tilted(BETA))[held].mean()
    assert cpl["j_efficiency"] == pytest.approx(1 - gap / best)


def test_the_reference_scores_zero_and_lies_at_no_point_of_the_frontier(tmp_path: Path) -> None:
    rows = exact_table(load_results(exact_folders.exact(tmp_path / "run").path)).set_index("method")
    assert np.allclose(rows.loc["sft", "j_efficiency"], 0)
    without = ["frontier_efficiency", "objective_bias", "learning_error", "target_kl"]
    assert rows.loc["sft", without].isna().all(axis=None)


def test_an_infinite_divergence_is_not_the_mean_of_the_finite_ones(tmp_path: Path) -> None:
    folder = exact_folders.exact(tmp_path / "run", seeds=(0,))
    cell = folder.read_cell("dpo", 0)
    for row in cell.scores:
        if row["metric"] == "exact_kl_from_optimum" and row["prompt_id"] == "p3":
            row["value"] = None
    folder.write_cell("dpo", 0, scores=cell.scores)
    rows = exact_table(load_results(folder.path)).set_index("method")
    assert rows.loc["rejection_sampling", "objective_bias"] == math.inf
    assert rows.loc["dpo", "kl_from_optimum"] == math.inf
    assert math.isfinite(rows.loc["rejection_sampling", "learning_error"])


def test_failed_and_diverged_cells_are_rows_without_figures(tmp_path: Path) -> None:
    folder = exact_folders.exact(tmp_path / "run", failed=("dpo",))
    cell = folder.read_cell("cpl", 0)
    folder.write_cell("cpl", 0, scores=[row | {"value": None} for row in cell.scores])
    rows = exact_table(load_results(folder.path)).set_index(["method", "seed"])
    figures = COLUMNS[6:15]
    for key in (("dpo", 0), ("dpo", 1), ("cpl", 0)):
        assert rows.loc[key, figures].isna().all()
    assert rows.loc[("cpl", 1), "j_efficiency"] > 0
    summary = exact_summary(load_results(folder.path)).set_index("method")
    assert math.isnan(summary.loc["cpl", "j_efficiency"])  # the seed that is left is no fair sample


def test_a_failed_seed_is_one_of_its_methods_group(tmp_path: Path) -> None:
    folder = exact_folders.exact(tmp_path / "run", labels=256)
    folder.fail_cell("dpo", 1, "RunFailed: loss is NaN at step 3")
    results = load_results(folder.path)
    table = exact_table(results)
    assert list(table.loc[table["method"] == "dpo", "labels"]) == [256.0, 256.0]
    [row] = exact_summary(results).set_index("method").loc[["dpo"]].to_dict("records")
    assert (row["labels"], row["seeds"]) == (256.0, 2)
    assert math.isnan(row["reward"])  # the seed that is left is no fair sample
    paths = [exact_folders.exact(tmp_path / f"world-{world}", world=world).path for world in (0, 1)]
    other = exact_folders.exact(tmp_path / "world-2", world=2, failed=("dpo",))  # none of its own has finished
    [row] = exact_summary(load_results(*paths, other.path)).set_index("method").loc[["dpo"]].to_dict("records")
    assert (row["labels"], row["worlds"]) == (512.0, 3) and math.isnan(row["reward"])


def test_the_world_is_the_unit_where_there_are_several(tmp_path: Path) -> None:
    paths = [exact_folders.exact(tmp_path / f"world-{world}", world=world).path for world in (0, 1, 2)]
    one = exact_summary(load_results(paths[0])).set_index("method").loc["dpo"]
    assert (one["unit"], one["worlds"], one["seeds"]) == ("seed", 1, 2)
    results = load_results(*paths)
    several = exact_summary(results).set_index("method").loc["dpo"]
    assert (several["unit"], several["worlds"], several["seeds"]) == ("world", 3, 2)
    cells = exact_table(results)
    means = cells[cells["method"] == "dpo"].groupby("world")["j_efficiency"].mean()
    assert several["j_efficiency"] == pytest.approx(means.mean())
    half = 4.302653 * means.std() / math.sqrt(3)
    assert several["j_efficiency_high"] - several["j_efficiency"] == pytest.approx(half, rel=1e-5)


def test_the_same_policy_in_two_runs_counts_once(tmp_path: Path) -> None:
    paths = [exact_folders.exact(tmp_path / f"b{labels}", labels=labels).path for labels in (128, 512)]
    summary = exact_summary(load_results(*paths)).set_index(["method", "labels"])
    assert ("sft", 0.0) in summary.index and ("dpo", 128.0) in summary.index and ("dpo", 512.0) in summary.index
    alone = exact_summary(load_results(paths[0])).set_index("method").loc["sft"]
    assert summary.loc[("sft", 0.0), "reward_high"] == pytest.approx(alone["reward_high"])


def test_infinite_means_have_no_interval(tmp_path: Path) -> None:
    rows = exact_summary(load_results(exact_folders.exact(tmp_path / "run").path)).set_index("method")
    assert math.isfinite(rows.loc["cpl", "objective_bias_low"])
    assert rows.loc["rejection_sampling", "objective_bias"] == math.inf
    assert math.isnan(rows.loc["rejection_sampling", "objective_bias_low"])


def test_other_suites_are_not_in_the_laboratory(finished_run: RunFolder) -> None:
    results = load_results(finished_run.path)
    assert setting(finished_run) is None and frontier(finished_run) is None
    assert exact_table(results).empty and list(exact_table(results).columns) == COLUMNS
    assert exact_summary(results).empty


def test_the_limit_gets_no_verdicts(tmp_path: Path) -> None:
    limit = exact_folders.exact(tmp_path / "limit", setting="limit")
    budget = exact_folders.exact(tmp_path / "budget")
    verdicts = load_results(limit.path, budget.path).leaderboard().set_index("method")["verdict_vs_sft"]
    assert verdicts["limit/dpo"] == "no verdict (correctness, not a ranking)"
    assert verdicts["limit/sft"] == "baseline"
    assert verdicts["budget/dpo"] == "cannot tell (method, 2 seeds)"  # two seeds of few prompts hardly ever can


def test_a_frontier_is_a_curve_and_no_table(tmp_path: Path) -> None:
    folder = exact_folders.exact(tmp_path / "run", seeds=(0,), methods=("sft",))
    kl, reward = frontier(folder) or ([], [])
    assert kl[0] == 0 and reward == sorted(reward)
    assert folder.extra() == []
    folder.write_json("extra/frontier.json", {"kl": [0.0], "reward": []})
    with pytest.raises(BadInput, match=r"frontier\.json"):
        frontier(folder)
