"""`alignarena score RUN --judge`: verdicts on stored completions, next to what was scored before."""

import json
from pathlib import Path
from typing import Any

import pytest
import run_folders
from judge_server import JudgeServer

from alignarena import cli
from alignarena.benchmarks.judging import judge
from alignarena.core.errors import BadInput, RunFailed
from alignarena.core.files import read_json, write_jsonl
from alignarena.evaluators.judges.baselines import Longer
from alignarena.evaluators.judges.local import LocalJudge
from alignarena.evaluators.labeler import as_text
from alignarena.results.frame import load_results
from alignarena.results.store import RunFolder

METHODS = ("sft", "dpo", "rlaif")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.setenv("ALIGNARENA_CACHE", str(tmp_path / "cache"))
    return run_folders.quickstart(tmp_path / "run", methods=METHODS)


def scored(run: RunFolder, method: str, metric: str) -> list[dict[str, Any]]:
    return [row for row in run.read_cell(method, 0).scores if row["metric"] == metric]


def test_a_judge_adds_verdicts_and_leaves_the_rest(run: RunFolder) -> None:
    before = run.read_cell("dpo", 0)
    judge(run.path, "longer")
    after = run.read_cell("dpo", 0)
    theirs = {(row["prompt_id"], row["sample"]): row["completion"] for row in run.read_cell("sft", 0).completions}
    rows = scored(run, "dpo", "judge_longer")
    assert after.scores[: len(before.scores)] == before.scores and len(rows) == len(before.completions)
    for row, own in zip(rows, before.completions, strict=True):
        gap = len(own["completion"]) - len(theirs[own["prompt_id"], own["sample"]])
        assert row["value"] == (gap > 0) + 0.5 * (gap == 0)
    assert scored(run, "sft", "judge_longer") == []
    judge(run.path, "longer")  # again: replaced, not added
    assert run.read_cell("dpo", 0).scores == after.scores
    table = read_json(run.path / "extra" / "judge_longer.json")
    assert [row[0] for row in table["rows"]] == ["dpo", "rlaif"] and table["title"] == "Judge longer (diagnostic)"
    assert load_results(run.path).interval("dpo", "judge_longer").mean == pytest.approx(table["rows"][0][2], abs=1e-4)


def test_recorded_verdicts_and_what_is_not_recorded(run: RunFolder, tmp_path: Path) -> None:
    theirs = {(row["prompt_id"], row["sample"]): row["completion"] for row in run.read_cell("sft", 0).completions}
    own = run.read_cell("dpo", 0).completions
    rows = [{"prompt": as_text(row["prompt"]), "a": row["completion"], "b": theirs[row["prompt_id"], row["sample"]],
             "winner": "a"} for row in own]  # fmt: skip
    write_jsonl(tmp_path / "people.jsonl", rows)
    judge(run.path, f"human:{tmp_path / 'people.jsonl'}")
    differ = [row["completion"] != theirs[row["prompt_id"], row["sample"]] for row in own]
    values = [row["value"] for row in scored(run, "dpo", "judge_human_people")]
    assert values == [1.0 if one else 0.5 for one in differ]  # the same text twice is even, whatever is on record
    table = read_json(run.path / "extra" / "judge_human_people.json")
    (line,) = [row for row in table["rows"] if row[0] == "rlaif"]
    assert line[8] > 0 and "not in the file of recorded verdicts" in line[-1]  # missing, and why
    assert len(scored(run, "rlaif", "judge_human_people")) == len(own) - line[8]


def test_no_verdict_of_a_judge_on_its_own_feedback(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("openai")
    budget = read_json(run.cell_path("rlaif", 0) / "budget.json")
    budget["charged"]["labeler_calls"] = 64
    run.write_cell("rlaif", 0, budget=budget)
    with JudgeServer().running() as server:
        settings = {"base_url": server.url}
        judge(run.path, "api:org/SmolLM2-135M-Instruct", settings)
        metric = "judge_smollm2_135m_instruct"
        assert scored(run, "dpo", metric) and scored(run, "rlaif", metric) == []
        assert "of the family of the model compared" in capsys.readouterr().err
        asked = len(server.asked)
        judge(run.path, "api:org/SmolLM2-135M-Instruct", settings)
        assert len(server.asked) == asked  # nothing is asked twice
        judge(run.path, "api:other-9b", settings)
        assert scored(run, "rlaif", "judge_other_9b")
    table = read_json(run.path / "extra" / f"{metric}.json")
    (line,) = [row for row in table["rows"] if row[0] == "rlaif"]
    assert line[2] is None and "the model behind it, gave" in line[-1]
    card = run.provenance["evaluators"][metric]
    assert card["role"] == "verdict" and "rlaif/0" in card["withheld"] and "family" in card["note"]


def test_the_verb_writes_the_report(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    completions = [run.read_cell(method, 0).completions for method in METHODS]
    assert cli.main(["score", str(run.path), "--judge", "random", "--set", "seed=3"]) == 0
    page = (run.path / "report" / "index.html").read_text(encoding="utf-8")
    assert "Judge random (diagnostic)" in page
    assert [run.read_cell(method, 0).completions for method in METHODS] == completions
    assert "judge_random" in set(load_results(run.path).metrics)
    capsys.readouterr()
    for argv, said in ((["--set", "seed=3"], "name one with --judge"), (["--judge", "randm"], "did you mean 'random'")):
        assert cli.main(["score", str(run.path), *argv]) == 2
        assert said in capsys.readouterr().err


def test_a_judge_that_cannot_be_reached_leaves_the_run_as_it_was(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    nobody = ["base_url=http://127.0.0.1:9/v1", "retries=0", "timeout=5"]
    assert cli.main(["score", str(run.path), "--judge", "api:nobody", "--set", *nobody]) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "judge nobody answered none of" in said and "(no connection)" in said
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before


def test_a_judge_that_names_no_side_gives_no_verdict(run: RunFolder) -> None:
    pytest.importorskip("openai")
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    with JudgeServer(answer=lambda number, said: "").running() as server:
        settings = {"base_url": server.url, "rereads": 0}
        with pytest.raises(RunFailed, match=r"judge other-9b answered none of .* --set max_tokens=2048"):
            judge(run.path, "api:other-9b", settings)
        assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before
        asked, server.answer = len(server.asked), lambda number, said: "1"
        judge(run.path, "api:other-9b", {**settings, "max_tokens": 2048})
        assert len(server.asked) == 2 * asked and scored(run, "dpo", "judge_other_9b")


def test_what_could_not_be_read_says_nothing_of_order(run: RunFolder) -> None:
    pytest.importorskip("openai")

    def reads_half(number: int, said: list[dict[str, str]]) -> str:
        first, _, second = said[0]["content"].partition("Response 1: ")[2].partition("\n\nResponse 2: ")
        return "1" if first < second else "Neither"

    with JudgeServer(answer=reads_half).running() as server:
        judge(run.path, "api:other-9b", {"base_url": server.url, "rereads": 0})
    for row in read_json(run.path / "extra" / "judge_other_9b.json")["rows"]:
        assert row[5:7] == [None, None] and row[7] > 0  # each pair has one order that was read


def test_judges_of_other_goals_stand_side_by_side(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openai")
    monkeypatch.setattr(LocalJudge, "answers", lambda self, pairs: Longer().answers(pairs))
    with JudgeServer(answer=lambda number, said: "1").running() as server:
        judge(run.path, "api:other-9b", {"base_url": server.url})
        judge(run.path, "api:other-9b", {"base_url": server.url, "goal": "Be brief."})
    plain = scored(run, "dpo", "judge_other_9b")
    judge(run.path, "local:other-9b")  # of one name, but asked another way
    cards = {name: card["note"] for name, card in run.provenance["evaluators"].items() if "other_9b" in name}
    assert len(cards) == 3 and all(scored(run, "dpo", name) for name in cards)
    assert scored(run, "dpo", "judge_other_9b") == plain
    (brief,) = [note for note in cards.values() if "Be brief." in note]
    assert server.url in brief and server.url in cards["judge_other_9b"]
    assert "on this machine" in cards["judge_other_9b_local"]


def test_without_sft_there_is_nothing_to_compare_with(tmp_path: Path) -> None:
    alone = run_folders.quickstart(tmp_path / "run", methods=("dpo",))
    with pytest.raises(BadInput, match="run sft and another method"):
        judge(alone.path, "longer")


def test_trimmed_results_have_nothing_to_read(run: RunFolder) -> None:
    for method in METHODS:
        run.write_cell(method, 0, completions=[])
    with pytest.raises(BadInput, match="no completions are stored"):
        judge(run.path, "longer")


def test_every_judge_is_json(run: RunFolder) -> None:
    judge(run.path, "first")
    table = json.loads((run.path / "extra" / "judge_first.json").read_text())
    assert all(row[2] == 0.5 and row[5] == 0.0 and row[6] == 1.0 for row in table["rows"])


def test_the_gold_of_a_run_is_a_diagnostic_and_gives_its_win_rate(copied_run: Any) -> None:
    folder = RunFolder(copied_run.folder)
    judge(folder.path, "gold")
    for method in ("dpo", "best_of_n"):
        wins = {(row["prompt_id"], row["sample"]): row["value"] for row in scored(folder, method, "win")}
        verdicts = {(row["prompt_id"], row["sample"]): row["value"] for row in scored(folder, method, "judge_gold")}
        assert verdicts == wins
    assert folder.provenance["evaluators"]["judge_gold"]["role"] == "diagnostic"
    judge(folder.path, "reward_model")  # from the cache, as trained
    assert scored(folder, "ppo", "judge_reward_model")
