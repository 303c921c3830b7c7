"""What people's verdicts say, against numbers worked out by hand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import run_folders

from alignarena.benchmarks.blind import Drawn, draw
from alignarena.benchmarks.people import count
from alignarena.core.files import read_json
from alignarena.reports.page import write_report
from alignarena.results.frame import load_results
from alignarena.results.people import Person, Verdict
from alignarena.results.store import RunFolder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return run_folders.quickstart(tmp_path / "run", methods=("sft", "dpo", "ppo"))


def said(one: Drawn, name: str, winner: Any, first: Any = "a") -> Verdict:
    where = (one.method, one.seed, one.prompt_id, one.sample)
    return Verdict(one.key, name, winner, first, *where, one.pair.prompt, one.pair.a, one.pair.b)


def pairs(run: RunFolder, method: str, number: int) -> list[Drawn]:
    return [one for one in draw(run, [method]) if one.pair.a != one.pair.b][:number]


def test_win_rates_are_those_of_a_judge_like_any_other(run: RunFolder) -> None:
    dpo, ppo = pairs(run, "dpo", 4), pairs(run, "ppo", 2)
    Person(run.path, "ann").add([said(one, "ann", "a") for one in dpo[:2]] + [said(dpo[2], "ann", "tie")])
    Person(run.path, "bob").add([said(dpo[0], "bob", "b"), said(ppo[0], "bob", "b"), said(ppo[1], "bob", "b")])
    tables = count(run.path)
    rows = {row[0]: dict(zip(tables[0]["columns"], row, strict=True)) for row in tables[0]["rows"]}
    assert rows["dpo"]["win rate"] == pytest.approx((0.5 + 1 + 0.5) / 3, abs=1e-4)  # ann and bob differ on the first
    assert rows["ppo"]["win rate"] == 0 and rows["ppo"]["missing"] == len(run.completions("ppo", 0)) - 2
    assert load_results(run.path).interval("dpo", "judge_human_people").mean == pytest.approx(2 / 3)
    assert run.provenance["evaluators"]["judge_human_people"]["role"] == "verdict"
    page = write_report([run.path]).read_text(encoding="utf-8")
    for title in ("Judge human-people (verdict)", "People", "People beside each other and other judges"):
        assert f"<h3>{title}</h3>" in page


def test_who_judged_and_whether_they_like_a_place(run: RunFolder) -> None:
    one, two, three, four = pairs(run, "dpo", 4)
    given = [said(one, "ann", "a", "a"), said(two, "ann", "a", "b"), said(three, "ann", "b", "b")]
    given.append(said(four, "ann", "tie"))
    Person(run.path, "ann").add([*given, said(pairs(run, "ppo", 1)[0], "ann", "tie", None)])
    [_, table, _] = count(run.path)
    assert table["rows"] == [["ann", 4, 1, pytest.approx(2 / 3, abs=1e-4)]]  # the pair of equal texts is not hers


def test_kappa_between_people_by_hand(run: RunFolder) -> None:
    four = pairs(run, "dpo", 4)
    winners = {"ann": "aabb", "bob": "aaba", "cid": "aabb"}
    for name, each in winners.items():
        Person(run.path, name).add([said(one, name, winner) for one, winner in zip(four, each, strict=True)])
    rows = {(row[0], row[1]): row[2:] for row in count(run.path)[2]["rows"]}
    # po = 3/4; pe = (2/4)(3/4) + (2/4)(1/4) = 1/2
    assert rows["ann", "bob"] == [4, None, None, None, 0.75, 0.5]
    assert rows["ann", "cid"] == [4, None, None, None, 1.0, 1.0]
    # P_i = 1, 1, 1, 1/3, shares 7/12 and 5/12: Pe = 74/144
    assert rows["all 3", "each other"][-1] == pytest.approx((10 / 12 - 74 / 144) / (1 - 74 / 144), abs=1e-4)


def test_agreement_with_the_gold_and_an_ai_judge(run: RunFolder) -> None:
    gold = {cell: {(row["prompt_id"], row["sample"]): row["value"] for row in run.read_cell(cell, 0).scores
                   if row["metric"] == "gold"} for cell in ("sft", "dpo")}  # fmt: skip
    judged = [one for one in pairs(run, "dpo", 60)
              if gold["dpo"][one.prompt_id, one.sample] != gold["sft"][one.prompt_id, one.sample]][:8]  # fmt: skip
    better = [gold["dpo"][one.prompt_id, one.sample] > gold["sft"][one.prompt_id, one.sample] for one in judged]
    winners = ["a" if mine else "b" for mine in better]
    winners[0] = "b" if winners[0] == "a" else "a"  # one of eight against the gold
    Person(run.path, "ann").add([said(one, "ann", winner) for one, winner in zip(judged, winners, strict=True)])
    ai = [{"prompt_id": one.prompt_id, "sample": one.sample, "evaluator": "judge_x", "metric": "judge_x",
           "value": 0.9 if winner == "a" else 0.2}
          for one, winner in zip(judged[:3], winners, strict=False)]  # fmt: skip
    run.write_cell("dpo", 0, scores=[*run.read_cell("dpo", 0).scores, *ai])
    rows = {(row[0], row[1]): row[2:] for row in count(run.path)[2]["rows"]}
    assert set(rows) == {("ann", "gold"), ("ann", "x")}  # people are no judge of people
    assert rows["ann", "gold"][:2] == [8, 0.875] and rows["ann", "gold"][4] == 0.875
    assert rows["ann", "x"][:2] == [3, 1.0]  # where it has a verdict


def test_where_two_methods_wrote_the_same_sides_are_those_of_the_text(run: RunFolder) -> None:
    (one,) = pairs(run, "dpo", 1)
    Person(run.path, "ann").add([said(one, "ann", "a")])
    mirrored = replace(one, pair=one.pair.swapped())
    Person(run.path, "bob").add([said(mirrored, "bob", "b")])
    win_rates, _, beside = count(run.path)
    assert beside["rows"][0][:3] == ["ann", "bob", 1] and beside["rows"][0][6] == 1.0
    assert win_rates["rows"][0][2] == 1.0  # of dpo


def test_nobody_no_tables(run: RunFolder) -> None:
    assert count(run.path) == []
    Person(run.path, "ann").add([replace(said(pairs(run, "dpo", 1)[0], "ann", "a"), winner=None)])
    assert count(run.path) == [] and not (run.path / "extra" / "people.json").exists()


def test_counted_again_it_is_the_same(run: RunFolder) -> None:
    Person(run.path, "ann").add([said(one, "ann", "a") for one in pairs(run, "dpo", 3)])
    tables, scores = count(run.path), run.read_cell("dpo", 0).scores
    assert count(run.path) == tables and run.read_cell("dpo", 0).scores == scores
    assert read_json(run.path / "extra" / "people_beside.json") == tables[2]
