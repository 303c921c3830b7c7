"""Statistics asked of a run: the arrays that reach them are those of its scores and completions."""

import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from alignarena.core.errors import BadInput
from alignarena.results import of_run
from alignarena.results.best_of_n import best_of_n_kl
from alignarena.results.frame import Results, load_results
from alignarena.results.store import RunFolder


@pytest.fixture(scope="module")
def results(finished_run: RunFolder) -> Results:
    return load_results(finished_run.path)


def scores(results: Results, label: str, metric: str) -> pd.DataFrame:
    frame = results.frame
    return frame[(frame["method"] == label) & (frame["metric"] == metric)]


def test_win_rate_counts_the_runs_verdicts(results: Results) -> None:
    wins = scores(results, "dpo", "win")["value"]
    found = of_run.win_rate(results, "dpo")
    assert (found.wins, found.ties, found.losses) == ((wins == 1).sum(), (wins == 0.5).sum(), (wins == 0).sum())
    assert found.soft.mean == pytest.approx(wins.mean())


def test_equal_length_takes_prompts_enough_and_then_moves_the_rate(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert math.isnan(of_run.length_controlled(results, "dpo").mean)  # 80 prompts
    monkeypatch.setattr(of_run, "FEWEST_PROMPTS_LENGTH_CONTROLLED", 80)
    found, raw = of_run.length_controlled(results, "dpo"), of_run.win_rate(results, "dpo").soft.mean
    assert found.low < found.mean < found.high and 0 < abs(found.mean - raw) < 0.1
    assert math.isnan(of_run.length_controlled(results, "dpo", "judge_nobody").mean)


def test_ratings_have_sft_for_anchor_and_one_suite(
    results: Results, finished_run: RunFolder, run_folders: ModuleType, tmp_path: Path
) -> None:
    found = of_run.ratings(results)
    assert found.elo["sft"].mean == 1000.0 and next(iter(found.elo)) == "ppo"
    other = run_folders.quickstart(tmp_path / "other", methods=("sft", "dpo"))
    other.update_status(suite_digest="d2")
    with pytest.raises(BadInput, match="of 2 suites"):
        of_run.ratings(load_results(finished_run.path, other.path))


def test_kl_by_hand(results: Results) -> None:
    k1 = scores(results, "dpo", "kl")["value"].to_numpy()
    tokens = sum(row["tokens"] for row in results.entry("dpo").finished[0].completions)
    found = of_run.kl(results, "dpo")
    assert found.k1.mean == pytest.approx(k1.mean()) and found.per_token == pytest.approx(k1.sum() / tokens)
    assert found.k3.mean == pytest.approx(np.mean(np.exp(-k1) - 1 + k1)) and not found.analytic
    bound = of_run.kl(results, "best_of_n")
    assert bound.analytic and math.isnan(bound.k3.mean) and bound.k1.mean == pytest.approx(best_of_n_kl(4))


def test_where_methods_ended_and_the_best_of_it(results: Results) -> None:
    points = of_run.kl_and_reward(results).set_index("method")
    assert list(points.index) == ["sft", "dpo", "ppo", "rejection_sampling"]  # no bound, no other start
    assert tuple(points.loc["sft", ["kl", "gain"]]) == (0.0, 0.0)
    gold = [results.interval(label, "gold").mean for label in ("dpo", "sft")]
    assert points.loc["dpo", "gain"] == pytest.approx(gold[0] - gold[1])
    best = of_run.frontier(results)
    assert best.reward_at(0.0) == pytest.approx(gold[1])
    assert best.reward_at(float(points.loc["ppo", "kl"])) == pytest.approx(points.loc["ppo", "reward"])


def test_over_optimisation_goes_through_the_chosen_ends(results: Results) -> None:
    found = of_run.over_optimisation(results, ["sft", "dpo", "ppo", "rejection_sampling"], form="best_of_n")
    assert found is not None and found.points == 4 and float(found.reward(0.0)) == 0.0
    assert of_run.over_optimisation(results, ["dpo", "ppo"]) is None


def test_best_of_a_methods_own_samples(results: Results) -> None:
    gold, proxy = (scores(results, "sft", name).pivot(index="prompt_id", columns="sample", values="value")
                   for name in ("gold", "proxy_reward"))  # fmt: skip
    by_hand = np.where(proxy[0] > proxy[1], gold[0], gold[1])
    by_hand = np.where(proxy[0] == proxy[1], gold.mean(axis=1), by_hand)
    found = of_run.best_of_n(results, "sft")
    assert list(found) == [1, 2]
    assert found[1].mean == pytest.approx(gold.to_numpy().mean())
    assert found[2].mean == pytest.approx(by_hand.mean()) and found[2].low < found[2].mean < found[2].high
    assert of_run.best_of_n(results, "sft", chosen_by="nothing") == {}
