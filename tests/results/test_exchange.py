"""Files for other tools: their fields, and our completions and means in them."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from alignarena import cli
from alignarena.core.errors import BadInput
from alignarena.core.files import read_json, read_jsonl
from alignarena.core.text import prompt_text
from alignarena.results.exchange import export_results
from alignarena.results.frame import load_results
from alignarena.results.store import RunFolder
from alignarena.results.trim import trim


def _first(folder: RunFolder, method: str) -> dict[str, tuple[str, str]]:
    """The prompt and the first completion of each prompt id, by id."""
    rows = [row for row in folder.read_cell(method, 0).completions if row["sample"] == 0]
    texts = {row["prompt_id"]: (prompt_text(row["prompt"]), _as_written(row["completion"])) for row in rows}
    return dict(sorted(texts.items()))


def _as_written(text: str) -> str:
    """Completions as JSON files hold them: a lone surrogate has no bytes, and is its escape."""
    return str(json.loads(json.dumps(text)))


def test_alpaca_eval(finished_run: RunFolder, tmp_path: Path) -> None:
    files = export_results(finished_run.path, "alpaca_eval", tmp_path)
    assert sorted(file.parent.name for file in files) == sorted(f"{m}-0" for m, _ in finished_run.cells())
    rows = read_json(tmp_path / "dpo-0" / "model_outputs.json")
    assert {tuple(row) for row in rows} == {("dataset", "instruction", "output", "generator")}
    assert {row["generator"] for row in rows} == {"dpo-0"}
    stored = _first(finished_run, "dpo")
    assert [(row["instruction"], row["output"]) for row in rows] == list(stored.values())


def test_arena_hard(finished_run: RunFolder, tmp_path: Path) -> None:
    export_results(finished_run.path, "arena_hard", tmp_path)
    questions = {row["uid"]: row for row in read_jsonl(tmp_path / "question.jsonl")}
    answers = read_jsonl(tmp_path / "model_answer" / "ppo-0.jsonl")
    assert {row["uid"] for row in answers} == set(questions)
    assert set(next(iter(questions.values()))) == {"uid", "category", "prompt"}
    stored = _first(finished_run, "ppo")
    for row in answers:
        assert set(row) == {"uid", "ans_id", "model", "messages", "tstamp", "metadata"} and row["model"] == "ppo-0"
        asked, answered = row["messages"]
        assert asked == {"role": "user", "content": questions[row["uid"]]["prompt"]}
        assert stored[row["uid"]] == (asked["content"], answered["content"]["answer"])
    assert len({row["ans_id"] for row in answers}) == len(answers)


def test_mt_bench_holds_every_sample_as_a_choice(finished_run: RunFolder, tmp_path: Path) -> None:
    export_results(finished_run.path, "mt_bench", tmp_path)
    questions = {row["question_id"]: row["turns"] for row in read_jsonl(tmp_path / "question.jsonl")}
    answers = read_jsonl(tmp_path / "model_answer" / "sft-0.jsonl")
    rows = finished_run.read_cell("sft", 0).completions
    stored = {(row["prompt_id"], row["sample"]): row["completion"] for row in rows}
    for row in answers:
        assert set(row) == {"question_id", "answer_id", "model_id", "choices", "tstamp"}
        assert [choice["index"] for choice in row["choices"]] == [0, 1]
        for choice in row["choices"]:
            assert choice["turns"] == [_as_written(stored[row["question_id"], choice["index"]])]
        assert len(questions[row["question_id"]]) == 1


def test_lm_eval(finished_run: RunFolder, tmp_path: Path) -> None:
    export_results(finished_run.path, "lm_eval", tmp_path)
    (file,) = (tmp_path / "dpo-0").glob("results_*.json")
    found: dict[str, Any] = read_json(file)
    task, interval = "alignarena_quickstart", load_results(finished_run.path).interval("dpo", "gold")
    assert found["results"][task]["gold,none"] == pytest.approx(interval.mean)
    assert found["results"][task]["gold_stderr,none"] == pytest.approx(interval.standard_error)
    prompts = len(_first(finished_run, "dpo"))
    assert found["n-samples"] == {task: {"original": prompts, "effective": prompts}}
    assert found["higher_is_better"] == {task: {"gold": True, "win": True}}
    assert set(found["versions"]) == set(found["n-shot"]) == set(found["configs"]) == {task}
    assert found["model_name"] == "dpo-0" and found["config"]["random_seed"] == 0


def test_conversations_become_text(run_folders: ModuleType, tmp_path: Path) -> None:
    folder = run_folders.quickstart(tmp_path / "run", methods=("sft",))
    talk = [("user", "Hi"), ("assistant", "Yes?"), ("user", "So")]
    prompt = [{"role": role, "content": said} for role, said in talk]
    rows = folder.read_cell("sft", 0).completions
    folder.write_cell("sft", 0, completions=[{**row, "prompt": prompt} for row in rows])
    export_results(folder.path, "alpaca_eval", tmp_path / "to")
    written = read_json(tmp_path / "to" / "sft-0" / "model_outputs.json")
    assert {row["instruction"] for row in written} == {"user: Hi\n\nassistant: Yes?\n\nuser: So"}


def test_what_is_not_there_is_not_exported(run_folders: ModuleType, finished_run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="unknown format 'alpaca'; did you mean 'alpaca_eval'"):
        export_results(finished_run.path, "alpaca", tmp_path)
    waiting = run_folders.start(tmp_path / "waiting", ("sft",), (0,))
    with pytest.raises(BadInput, match="no finished cell"):
        export_results(waiting.path, "lm_eval", tmp_path / "to")
    finished_run.write_results_parquet()
    small = trim(finished_run.path, tmp_path / "small", figures=True)
    with pytest.raises(BadInput, match="lacks completions"):
        export_results(small, "mt_bench", tmp_path / "to")
    assert export_results(small, "lm_eval", tmp_path / "to")


def test_the_command_prints_the_files(
    finished_run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["export-results", str(finished_run.path), "alpaca_eval", "--to", str(tmp_path / "to")]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed == [str(tmp_path / "to" / f"{m}-0" / "model_outputs.json") for m, _ in finished_run.cells()]
