from __future__ import annotations

import math
import resource
import time

import numpy as np
import pandas as pd
import pytest

from alignarena.core.errors import BadInput
from alignarena.results.head_to_head import judgments
from alignarena.results.ratings import rate
from alignarena.results.win_rates import win_rate


def played(rng: np.random.Generator, strengths: dict[str, float], prompts: int, seeds: int = 1) -> pd.DataFrame:
    names = list(strengths)
    rows = []
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            chance = 1 / (1 + math.exp(strengths[b] - strengths[a]))
            frame = pd.DataFrame({"seed": np.repeat(range(seeds), prompts), "prompt_id": list(range(prompts)) * seeds})
            rows.append(frame.assign(a=a, b=b, probability=(rng.random(len(frame)) < chance).astype(float)))
    return pd.concat(rows, ignore_index=True)


def test_odds_of_ten_are_400_points() -> None:
    rows = [("a", "b", i, float(i < 10)) for i in range(11)]
    found = rate(pd.DataFrame(rows, columns=["a", "b", "prompt_id", "probability"]), "b", n=100)
    assert list(found.elo) == ["a", "b"]
    assert found.elo["a"].mean == pytest.approx(1400)
    assert (found.elo["b"].low, found.elo["b"].high) == (1000, 1000)
    assert found.win_chance("a", "b") == pytest.approx(10 / 11)
    assert (found.prior, found.judgments, math.isnan(found.ties)) == ("none", 11, True)


def test_the_order_of_rows_and_of_sides_changes_nothing() -> None:
    games = played(np.random.default_rng(0), {"x": 0.0, "y": 0.5, "z": 1.0}, 60)
    turned = games.assign(a=games["b"], b=games["a"], probability=1 - games["probability"])
    one, other = (rate(table, "x", n=100) for table in (games, turned.sample(frac=1, random_state=1)))
    for name in one.elo:
        assert one.elo[name].mean == pytest.approx(other.elo[name].mean)
        assert one.elo[name].low == pytest.approx(other.elo[name].low)


def test_a_prompt_that_was_judged_often_weighs_no_more() -> None:
    games = pd.DataFrame({"a": "x", "b": "y", "prompt_id": [1, 2, 3], "probability": [1.0, 0.0, 1.0]})
    often = pd.concat([games, *[games[games["prompt_id"] == 2]] * 20])
    assert rate(often, "y", n=50).elo["x"].mean == pytest.approx(rate(games, "y", n=50).elo["x"].mean)


def test_davidson_keeps_ties_apart_and_bradley_terry_halves_them() -> None:
    games = pd.DataFrame({"a": "x", "b": "y", "prompt_id": range(11), "probability": [1.0] * 4 + [0.0] + [0.5] * 6})
    found = rate(games, "y", "davidson", n=200)
    assert found.ties == pytest.approx(3.0)
    assert found.elo["x"].mean == pytest.approx(1000 + 400 * math.log10(4))
    assert rate(games, "y", n=200).elo["x"].mean == pytest.approx(1000 + 400 * math.log10(7 / 4))


def test_a_prior_is_used_only_where_needed_and_said() -> None:
    games = pd.DataFrame({"a": "x", "b": "y", "prompt_id": range(5), "probability": 1.0})
    found = rate(games, "y", n=50)
    assert found.prior == "0.1 virtual wins and losses of everyone against y"
    assert found.elo["x"].mean == pytest.approx(1000 + 400 * math.log10(5.1 / 0.1))


def test_missing_verdicts_are_counted_and_an_anchor_must_have_played() -> None:
    games = played(np.random.default_rng(1), {"x": 0.0, "y": 0.5}, 30)
    games.loc[3, "probability"] = math.nan
    assert (rate(games, "x", n=50).missing, rate(games, "x", n=50).judgments) == (1, 29)
    with pytest.raises(BadInput, match="sft"):
        rate(games, "sft")


def test_seeds_that_disagree_widen_the_interval() -> None:
    rng = np.random.default_rng(2)
    same = played(rng, {"x": 0.0, "y": 0.5}, 200, seeds=3)
    found = rate(same, "x", n=200).elo["y"]
    assert found.low < found.mean < found.high
    shifted = pd.concat(
        [played(rng, {"x": 0.0, "y": y}, 200).assign(seed=seed) for seed, y in enumerate((-0.5, 0.5, 1.5))]
    )
    assert rate(shifted, "x", n=200).elo["y"].standard_error > 3 * found.standard_error


def test_head_to_head_of_a_run(finished_run: object) -> None:
    from alignarena.results.frame import load_results

    results = load_results(finished_run.path)  # type: ignore[attr-defined]
    games = judgments(results)
    scored = results.frame[results.frame["metric"] == "gold"]
    count = scored["method"].nunique()
    assert games.groupby(["a", "b"]).ngroups == count * (count - 1) // 2
    assert set(games["probability"]) <= {0.0, 0.5, 1.0}
    merged = scored.pivot_table(index=["seed", "prompt_id", "sample"], columns="method", values="value").dropna()
    one = games[(games["a"] == "sft") & (games["b"] == "dpo")]
    assert one["probability"].sum() == pytest.approx(
        (merged["sft"] > merged["dpo"]).sum() + (merged["sft"] == merged["dpo"]).sum() / 2
    )
    assert set(rate(games, "sft", n=50).elo) == set(scored["method"])


@pytest.mark.slow
def test_a_million_judgments_take_half_a_minute_of_one_core_and_two_gibibytes() -> None:
    rng, names = np.random.default_rng(3), [f"method{i}" for i in range(8)]
    picks = np.array([(i, j) for i in range(8) for j in range(8) if i != j])[rng.integers(0, 56, 1_000_000)]
    games = pd.DataFrame(
        {
            "a": np.array(names)[picks[:, 0]],
            "b": np.array(names)[picks[:, 1]],
            "seed": rng.integers(0, 5, 1_000_000),
            "prompt_id": [f"prompt {i}" for i in rng.integers(0, 40_000, 1_000_000)],
            "probability": rng.choice([0.0, 0.5, 1.0], 1_000_000),
        }
    )
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    for model in ("bradley_terry", "davidson"):
        found = rate(games, "method0", model)  # type: ignore[arg-type]
        assert found.judgments == 1_000_000
        assert all(abs(one.mean - 1000) < 5 for one in found.elo.values())
    won = win_rate([(rows["probability"], rows["prompt_id"]) for _, rows in games.groupby("seed")])
    assert won.soft.mean == pytest.approx(0.5, abs=0.01)
    assert time.process_time() - start < 30
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20 < 2
