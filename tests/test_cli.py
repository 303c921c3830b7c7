"""The command line: exit statuses, one line on stderr, and verbs that open without a tensor library."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from alignarena import cli
from alignarena.core.errors import RunFailed
from alignarena.core.files import write_json, write_jsonl
from alignarena.core.records import Ledger

VERBS = ("list", "run", "watch", "score", "judge", "report", "export", "export-results", "compare", "validate-judge",
         "new-method", "doctor")  # fmt: skip
TENSORS = "[name for name in ('torch', 'transformers', 'trl', 'peft', 'accelerate') if name in sys.modules]"


def _fails(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must end as bad input; return its only line."""
    assert cli.main(argv) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1, said
    return said.err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["rum"], "unknown verb 'rum'; did you mean 'run'?"),
        (["list", "method"], "unknown kind 'method'; did you mean 'methods'?"),
        (["run", "quikstart"], "unknown suite 'quikstart'; did you mean 'quickstart'?"),
        (["run", "none.yaml"], "none.yaml does not exist"),
        (["run", "quickstart", "--methods", "sft,dpoo"], "unknown method 'dpoo'; did you mean 'dpo'?"),
        (["run", "quickstart", "--methods", "none.py"], "none.py does not exist"),
        (["run", "quickstart", "--set", "method.dpo.betta=1"], "betta'; did you mean 'beta'?"),
        (["run", "quickstart", "--set", "sft.learning_rte=1"], "learning_rte'; did you mean 'learning_rate'?"),
        (["run", "quickstart", "--set", "method.dpo.beta=high"], "expected a number, got 'high'"),
        (["run", "quickstart", "--set", "beta"], "'beta' is not KEY=VALUE"),
        (["run", "quickstart", "--methods", ","], "',' names nothing"),
        (["run", "quickstart", "--seeds", "0,x"], "'0,x' is not a list of whole numbers"),
        (["run", "quickstart", "--nonsense"], "unrecognized arguments: --nonsense"),
        (["run"], "required: suite"),
        ([], "required: VERB"),
        (["score", "nowhere"], "nowhere"),
        (["report", "nowhere"], "nowhere"),
        (["compare", "nowhere", "dpo", "sft"], "nowhere is not a folder"),
        (["watch", "nowhere"], "nowhere is not a folder"),
        (["export", "nowhere", "dpo", "0", "--to", "x"], "nowhere is not a folder"),
        (["export", "nowhere", "dpo", "zero", "--to", "x"], "invalid int value: 'zero'"),
        (["export", "nowhere", "dpo", "0"], "required: --to"),
        (["export-results", "nowhere", "alpaca", "--to", "x"], "unknown format 'alpaca'; did you mean 'alpaca_eval'?"),
        (["new-method", "dpo"], "'dpo' is already registered by alignarena.methods.dpo"),
        (["new-method", "my-method"], "'my-method' is not a lower-case Python name"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    argv: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALIGNARENA_CACHE", str(tmp_path / "cache"))
    assert said in _fails(argv, capsys)
    assert not (tmp_path / "runs").exists() and not (tmp_path / "cache").exists()


@pytest.mark.parametrize(("out", "cache", "said"), [
    ("file", "cache", "file is a file and no folder; choose another folder"),
    ("runs", "file", "set ALIGNARENA_CACHE to a folder of your own"),
])  # fmt: skip
def test_a_file_in_the_place_of_a_folder_is_one_line_and_status_2(
    out: str, cache: str, said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALIGNARENA_CACHE", str(tmp_path / cache))
    monkeypatch.setattr("alignarena.harness.models._WHEEL", "pytest")  # any package that is there
    assert said in _fails(["run", "smoke", "--jobs", "1", "--out", out], capsys)


def test_a_loose_method_file_runs_like_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from alignarena.benchmarks import sweep
    from alignarena.core import registry
    from alignarena.scaffold import new_method

    class Asked(Exception):
        pass

    def run(suite: str, **asked: Any) -> None:
        raise Asked(suite, asked)

    monkeypatch.setattr(sweep, "run", run)
    registry.load_all()
    monkeypatch.setattr(registry, "METHODS", dict(registry.METHODS))
    path, _ = new_method("loose_one", tmp_path)
    argv = ["run", "smoke", "--methods", f"sft,{path}", "--seeds", "1,2", "--set", "a.b=1", "c=2", "--out", "x"]
    with pytest.raises(Asked) as caught:
        cli.main(argv)
    suite, asked = caught.value.args
    assert (suite, asked["methods"], asked["seeds"]) == ("smoke", ["sft", "loose_one"], [1, 2])
    assert (asked["set"], asked["out"], asked["method_files"]) == ({"a.b": "1", "c": "2"}, "x", [str(path)])


def test_a_dry_run_prints_a_plan_and_leaves_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from alignarena.benchmarks import sweep

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep.Sweep, "run", lambda self: pytest.fail("a dry run computed something"))
    assert cli.main(["run", "smoke", "--dry-run"]) == 0
    assert "dpo" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([verb, "--help"])
    assert ended.value.code == 0
    assert f"example:\n  alignarena {verb}" in capsys.readouterr().out


def test_a_failed_run_is_status_1_and_an_interrupt_130(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def raises(error: BaseException) -> int:
        def doctor() -> list[tuple[str, str]]:
            raise error

        monkeypatch.setattr("alignarena.doctor.diagnose", doctor)
        return cli.main(["doctor"])

    assert raises(RunFailed("two\n  lines")) == 1
    assert capsys.readouterr().err == "alignarena: two lines\n"
    assert raises(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err.startswith("alignarena: interrupted")
    assert raises(OSError(28, "No space left on device", "/cache/x")) == 1
    assert "free some space" in capsys.readouterr().err
    assert raises(PermissionError(13, "Permission denied", "/cache/x")) == 2
    assert "Permission denied: '/cache/x'; name a folder of your own" in capsys.readouterr().err
    assert raises(OSError(30, "Read-only file system", "/cache/x")) == 2
    with pytest.raises(FileNotFoundError):
        raises(FileNotFoundError())
    with pytest.raises(ZeroDivisionError):  # a defect of ours keeps its traceback
        raises(ZeroDivisionError())


def test_the_traceback_is_there_for_who_asks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALIGNARENA_DEBUG", "1")
    assert cli.main(["rum"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["methods", "suites", "evaluators", "datasets", "models"])
def test_lists_name_and_summarise_what_is_there(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", kind, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows and all(row["name"] and row["summary"] for row in rows)
    assert cli.main(["list", kind]) == 0
    table = capsys.readouterr().out
    assert all(row["name"] in table for row in rows)


def _python(code: str) -> str:
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    return ran.stdout.splitlines()[-1]


@pytest.mark.parametrize("kind", ["suites", "evaluators", "datasets", "models"])
def test_lists_open_without_a_tensor_library(kind: str) -> None:
    assert _python(f"import sys; from alignarena.cli import main; main(['list', '{kind}']); print({TENSORS})") == "[]"


def test_report_and_compare_open_without_a_tensor_library(tiny_run: Path) -> None:
    verbs = f"main(['compare', r'{tiny_run}', 'dpo', 'sft']), main(['report', r'{tiny_run}'])"
    code = f"import sys; from alignarena.cli import main; print({verbs}, {TENSORS})"
    assert _python(code) == "0 0 []"


def test_compare_prints_the_same_figures_as_text_and_json(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", str(tiny_run), "dpo", "sft"]) == 0
    text = capsys.readouterr().out
    assert cli.main(["compare", str(tiny_run), "dpo", "sft", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["metric"] == "gold" and found["difference"] == pytest.approx(0.25)
    assert "gold +0.250" in text and f"verdict: {found['verdict']}" in text


@pytest.fixture
def tiny_run(tmp_path: Path) -> Path:
    """A finished run folder of two methods; dpo's gold is sft's and a quarter more."""
    run = tmp_path / "tiny"
    run.mkdir()
    suite = {"name": "tiny", "methods": {"sft": {}, "dpo": {}}, "seeds": [0], "evaluators": ["gold"]}
    (run / "suite.resolved.yaml").write_text(yaml.safe_dump(suite))
    about = {"paper": "p", "summary": "s", "differs": "nothing", "hyperparameters": {}}
    provenance = {"suite_digest": "d", "seeds": [0], "versions": {}, "methods": {"sft": about, "dpo": about}}
    write_json(run / "provenance.json", provenance)
    write_json(run / "status.json", {"suite_digest": "d", "cells": {"sft/0": "DONE", "dpo/0": "DONE"}})
    _write_cell(run / "sft" / "0", gain=0.0)
    _write_cell(run / "dpo" / "0", gain=0.25)
    return run


def _write_cell(cell: Path, gain: float) -> None:
    rows = [{"prompt_id": f"p{i}", "sample": 0} for i in range(8)]
    said = {"prompt": "x", "completion": "A good day.", "finish_reason": "stop", "tokens": 4, "inference_tokens": 4}
    write_jsonl(cell / "completions.jsonl", [{**row, "cluster": row["prompt_id"], **said} for row in rows])
    scored = {"evaluator": "gold", "metric": "gold"}
    write_jsonl(cell / "scores.jsonl", [{**row, **scored, "value": i / 16 + gain} for i, row in enumerate(rows)])
    spent = Ledger().to_dict()
    write_json(cell / "budget.json", {"charged": spent, "spent": spent, "budget": {}, "track": "labels", "stages": []})
    write_json(cell / "DONE", {"stopped": "finished"})
