"""Tables of all cells together: scorers on aligned answers, variety, alignment tax, and who was not judged."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

import alignarena
from alignarena.benchmarks import plan
from alignarena.benchmarks.measured import behaviour_table
from alignarena.benchmarks.scorer_table import bins_table, scorer_table
from alignarena.results.cells import Cell, tidy
from alignarena.results.scored_pairs import ScoredPairs, scored_pairs
from alignarena.results.store import RunFolder

EVALUATORS = ["gold", "proxy", "heldout_reward", "ai_judge", "win_rate", "behaviour", "diversity"]
FAST = {
    "evaluators": EVALUATORS, "method.d_rlaif.updates": 2, "method.d_rlaif.prompts_per_update": 4,
    "method.d_rlaif.n": 2, "method.d_rlaif.schedule.batch_size": 2, "evaluation.n": 2,
}  # fmt: skip


def cell(method: str, **metrics: list[float | None]) -> Cell:
    """Return a cell of two prompts, one sample each."""
    completions = [{"prompt_id": f"p{i}", "cluster": f"c{i}", "sample": 0, "completion": "a b" if i else "a a a"}
                   for i in range(2)]  # fmt: skip
    scores = [{"prompt_id": f"p{i}", "sample": 0, "evaluator": "x", "metric": name, "value": value}
              for name, values in metrics.items() for i, value in enumerate(values)]  # fmt: skip
    return Cell(method=method, seed=0, state="DONE", completions=completions, scores=scores)


CELLS = [
    cell("dpo", gold=[0.9, 0.2], proxy_reward=[2, 1], heldout_reward=[1, -1], ai_judge=[0.5, 0.1], length=[9, 4]),
    cell("ppo", gold=[0.3, 0.6], proxy_reward=[3, 2], heldout_reward=[0, 1], ai_judge=[None, None], length=[5, 6]),
]


def pairs_of(cells: list[Cell]) -> ScoredPairs:
    return scored_pairs(tidy("suite", cells))


def test_the_table_has_a_row_a_scorer() -> None:
    table = scorer_table(pairs_of(CELLS))
    assert table is not None
    rows = {row[0]: row[1:] for row in table["rows"]}
    assert rows["reward model that methods optimised"][:2] == [2, 0.5]
    assert rows["reward model held out from training"][:2] == [2, 1.0]
    assert rows["reward model held out from training"][-1] is None  # it never errs
    assert "AI judge" not in rows  # no pair of which it knows both
    assert all(len(row) == len(table["columns"]) for row in table["rows"])


def test_bins_count_pairs_by_strength_and_length() -> None:
    table = bins_table(pairs_of(CELLS))
    assert table is not None
    assert [row[:4] for row in table["rows"]] == [
        ["gold 0.25 to 0.5", 1, 1.0, 1.0], ["gold 0.5 and more", 1, 0.0, 1.0], ["length 0 to 5", 2, 0.5, 1.0]
    ]  # fmt: skip


def test_without_gold_or_reward_models_there_is_no_table() -> None:
    plain = [cell("dpo", length=[3, 4]), cell("ppo", length=[4, 3])]
    assert scorer_table(pairs_of(plain)) is None is bins_table(pairs_of(plain))
    assert behaviour_table([cell("dpo")]) is None


def test_variety_is_that_of_all_completions_together() -> None:
    table = behaviour_table(CELLS[:1])
    assert table is not None
    (row,) = table["rows"]
    assert row[:4] == ["dpo", 0, pytest.approx(2 / 5), pytest.approx(2 / 3, abs=1e-4)]  # aa, aa, ab
    assert row[4] is None  # one answer a prompt
    assert row[5:] == [pytest.approx(1.0), pytest.approx(1.0)]


@pytest.fixture(scope="module")
def measured(tiny_suite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a method that the labeler taught."""
    folder = tmp_path_factory.mktemp("measured")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALIGNARENA_CACHE", str(folder / "cache"))
        alignarena.run(str(tiny_suite_file), out=folder / "run", methods=["sft", "dpo", "d_rlaif"], set=FAST)
    return folder / "run"


def values(folder: Path, method: str, metric: str) -> list[float | None]:
    found = RunFolder(folder).read_cell(method, 0).scores
    return [row["value"] for row in found if row["metric"] == metric]


def test_all_are_scored_by_the_held_out_model(measured: Path) -> None:
    for method in ("sft", "dpo", "d_rlaif"):
        found = values(measured, method, "heldout_reward")
        assert len(found) == 8 and all(one is not None and math.isfinite(one) for one in found)


def test_the_judge_grades_all_but_those_it_taught(measured: Path) -> None:
    assert all(one is not None for one in values(measured, "dpo", "ai_judge"))
    assert values(measured, "d_rlaif", "ai_judge") == [None] * 4
    card = json.loads((measured / "provenance.json").read_text())["evaluators"]["ai_judge"]
    assert list(card["withheld"]) == ["d_rlaif/0"]
    assert "gave or wrote what this method was trained on" in (measured / "report" / "index.html").read_text()
    budget = json.loads((measured / "d_rlaif" / "0" / "budget.json").read_text())
    assert "labeler" in budget["lineage"] and "vader" not in budget["lineage"]


def test_the_tables_are_in_the_report(measured: Path) -> None:
    names = {path.stem for path in (measured / "extra").glob("*.json")}
    assert {"scorers", "scorer_bins", "behaviour", "reward_checks", "labeler"} <= names
    checks = json.loads((measured / "extra" / "reward_checks.json").read_text())
    assert all(len(row) == len(checks["columns"]) for row in checks["rows"])
    by_name: dict[str, Any] = {row[0]: row[1:] for row in checks["rows"]}
    assert by_name["gold"][3] >= by_name["gold"][0]  # the best of four by gold is no worse than one
    assert "Reward models on SFT samples" in (measured / "report" / "index.html").read_text()


def test_a_dry_run_plans_it(tiny_suite_file: Path) -> None:
    text = plan.dry_run(str(tiny_suite_file), methods=["sft", "dpo"], set={"evaluators": EVALUATORS})
    assert "heldout_reward, ai_judge" in text and "cannot be planned" not in text
