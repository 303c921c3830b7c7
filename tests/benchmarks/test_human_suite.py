"""A user's own pairs of prompt, chosen, rejected: one command, and a report that claims no gold."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from alignarena import cli
from alignarena.core.files import read_json, read_jsonl
from alignarena.core.seeds import generator


def _write_pairs(path: Path, count: int = 160) -> None:
    """Write pairs in the tiny model's words; people like w1 in a completion."""
    with path.open("w") as file:
        for i in range(count):
            draw = generator(0, "pair", i)
            said = [f"w{int(word)}" for word in draw.integers(2, 250, size=6)]
            pair = {"prompt": f"w{i} w{i + 1}", "chosen": " ".join([*said[:3], "w1"]), "rejected": " ".join(said[3:])}
            file.write(json.dumps(pair) + "\n")


@pytest.fixture(scope="module")
def run(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("human")
    _write_pairs(folder / "pairs.jsonl")
    given = {
        "data.path": folder / "pairs.jsonl", "model.model_name_or_path": tiny_model_dir, "model.precision": "fp32",
        "model.max_prompt_tokens": 32, "model.max_new_tokens": 12, "model.tokens_per_batch": 512,
        "method.ppo.updates": 1, "method.ppo.prompts_per_update": 4, "method.ppo.n": 2, "method.best_of_n.n": 2,
        "method.rejection_sampling.rounds": 1, "method.rejection_sampling.n": 8,
        "method.dpo.schedule.learning_rate": 0.01,
    }  # fmt: skip
    settings = [f"{key}={value}" for key, value in given.items()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALIGNARENA_CACHE", str(folder / "cache"))
        assert cli.main(["run", "preferences", "--out", str(folder / "run"), "--set", *settings]) == 0
    return folder / "run"


def _board(run: Path) -> dict[str, dict[str, str]]:
    with (run / "report" / "tables" / "leaderboard.csv").open() as file:
        return {row["method"]: row for row in csv.DictReader(file)}


def test_there_is_no_gold_and_wins_are_counted(run: Path) -> None:
    board = _board(run)
    assert set(board) == {"base", "sft", "best_of_n", "dpo", "ppo", "rejection_sampling"}
    for method, row in board.items():
        assert row["gold_reward"] == row["gold_vs_sft"] == row["on_topic"] == "", method
        assert 0 <= float(row["win_rate_low"]) <= float(row["win_rate"]) <= float(row["win_rate_high"]) <= 1, method
        assert row["status"] == "DONE" and row["proxy_reward"] != ""
    assert float(board["sft"]["win_rate"]) == 0.5 and board["sft"]["verdict_vs_sft"] == "baseline"
    verdicts = {row["verdict_vs_sft"] for method, row in board.items() if method != "sft"}
    assert verdicts <= {f"{outcome} (checkpoint, 1 seed)" for outcome in ("better", "worse", "cannot tell")}


def test_methods_pay_for_the_pairs_that_they_read(run: Path) -> None:
    splits = {method: read_json(run / method / "0" / "budget.json")["charged"]["labels"] for method in ("sft", "dpo")}
    pairs = next(s for s in read_json(run / "dpo" / "0" / "budget.json")["stages"] if s["verb"] == "prefer")
    assert splits["sft"] == 0 and splits["dpo"] == pairs["ledger"]["labels"] > 20


def test_reward_models_are_measured_on_held_out_pairs(run: Path) -> None:
    table = read_json(run / "extra" / "reward_models.json")
    assert table["columns"] == ["scorer", "overall accuracy", "overall low", "overall high", "overall pairs"]
    assert [row[0] for row in table["rows"]] == [
        "the longer one wins", "reward model of overall pairs", "judge (reward model of a disjoint half)",
    ]  # fmt: skip
    for row in table["rows"]:
        _, accuracy, low, high, pairs = row
        assert 0 <= low <= accuracy <= high <= 1 and pairs > 10
    assert table["rows"][0][1] > 0.8  # four words against three: chosen is nearly always the longer
    scores = read_jsonl(run / "dpo" / "0" / "scores.jsonl")
    implicit = [row["value"] for row in scores if row["metric"] == "implicit_accuracy_overall"]
    assert len(implicit) == table["rows"][0][4] and sum(implicit) / len(implicit) > 0.6  # DPO learned what people like


def test_the_report_says_who_judged(run: Path) -> None:
    note = read_json(run / "provenance.json")["evaluators"]["win_rate"]["note"]
    assert note == "by a reward model trained on a disjoint half of the human pairs; see its accuracy"
    page = (run / "report" / "index.html").read_text()
    assert note in page and "Reward models on held-out human pairs" in page
