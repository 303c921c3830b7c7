from __future__ import annotations

import math
from pathlib import Path
from types import ModuleType

import pytest

from alignarena.reports import wins
from alignarena.reports.page import write_report
from alignarena.results.frame import load_results
from alignarena.results.store import RunFolder


@pytest.fixture(scope="module")
def match(finished_run: RunFolder) -> wins.Matches:
    [found] = wins.matches(load_results(finished_run.path))
    return found


def test_a_cell_is_the_share_of_prompts_won_and_its_mirror_image_the_rest(finished_run: RunFolder) -> None:
    results = load_results(finished_run.path)
    [match] = wins.matches(results)
    values = {label: results.samples(label, "gold")[0][0] for label in ("ppo", "sft")}
    won = (values["ppo"] > values["sft"]).mean() + (values["ppo"] == values["sft"]).mean() / 2
    table = wins.matrix(match)
    place = {label: i for i, label in enumerate(match.methods)}
    above, below = (table.shown[place[a]][1 + place[b]] for a, b in (("ppo", "sft"), ("sft", "ppo")))
    assert above.sort == pytest.approx(won)
    assert below.sort == pytest.approx(1 - won)
    assert below.limits == pytest.approx([1 - above.limits[1], 1 - above.limits[0]])  # type: ignore[index]
    assert table.shown[0][1].reason == "a method against itself"


def test_the_ranking_begins_with_the_best_and_sft_is_its_anchor(match: wins.Matches) -> None:
    table = wins.ranking(match)
    rows = {str(row[0].text): row for row in table.shown}
    assert [row[1].text for row in table.shown] == ["1", "2", "3", "4", "5", "6"]
    assert (table.shown[0][0].text, table.shown[-1][0].text) == ("ppo", "base")
    assert (rows["sft"][2].text, rows["sft"][3].text) == ("1,000", "0.50")
    elo = float(rows["ppo"][2].sort)
    assert rows["ppo"][3].sort == pytest.approx(1 / (1 + 10 ** ((1000 - elo) / 400)))


def test_every_pair_is_counted_once(match: wins.Matches) -> None:
    table = wins.pairs(match)
    assert len(table.rows) == math.comb(6, 2)
    counted = dict(zip(table.columns, table.rows[0], strict=True))
    assert counted["wins"] + counted["ties"] + counted["losses"] == 160


def test_where_sft_shares_no_seed_there_is_no_match_but_a_report(tmp_path: Path, run_folders: ModuleType) -> None:
    first = run_folders.quickstart(tmp_path / "first", methods=("sft",))
    second = run_folders.quickstart(tmp_path / "second", methods=("dpo", "ppo"), seeds=(1,))
    assert wins.matches(load_results(first.path, second.path)) == []
    html = write_report([first.path, second.path], tmp_path / "both").read_text(encoding="utf-8")
    assert "left out, as fewer than two methods" in html


def test_runs_of_several_suites_are_never_matched_with_each_other(tmp_path: Path, run_folders: ModuleType) -> None:
    first = run_folders.quickstart(tmp_path / "first", methods=("sft", "dpo"))
    second = run_folders.human_preferences(tmp_path / "hh")
    found = wins.matches(load_results(first.path, second.path))
    assert [(one.name, one.judged_by) for one in found] == [
        ("win_matrix-first", "gold reward"), ("win_matrix-hh", "reward model's score"),
    ]  # fmt: skip
    assert {tuple(pair) for one in found for pair in one.rates} == {("first/sft", "first/dpo"), ("hh/sft", "hh/dpo")}
