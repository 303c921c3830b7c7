"""A whole run on a tiny model: what it leaves, how it goes on, what it is charged, and how it fails."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny_suite
import yaml

import alignarena
from alignarena import cli
from alignarena.benchmarks import provenance, rescore, sweep
from alignarena.core import registry
from alignarena.core.contract import Lab, Policy, Task
from alignarena.core.errors import BadInput, RunFailed
from alignarena.core.files import read_json, read_jsonl
from alignarena.evaluators import sentiment
from alignarena.harness.cache import Cache
from alignarena.results.store import RunFolder

CELL_FILES = ("config.yaml", "metrics.jsonl", "completions.jsonl", "scores.jsonl", "budget.json", "policy", "DONE")
COLUMNS = (  # design of the run folder, in order
    "method, track, seeds, gold_reward, gold_reward_low, gold_reward_high, gold_vs_sft, gold_vs_sft_low, "
    "gold_vs_sft_high, on_topic, proxy_reward, win_rate, win_rate_low, win_rate_high, win_rate_length_controlled, "
    "kl, mean_length, inference_tokens, sampled_tokens, trained_tokens, labels, labeler_calls, seconds, "
    "peak_memory_mib, verdict_vs_sft, status"
)


def _scores(folder: Path) -> dict[str, list[dict[str, Any]]]:
    return {name: read_jsonl(folder / name / "0" / "scores.jsonl") for name in tiny_suite.METHODS}


def _budget(folder: Path, method: str) -> dict[str, Any]:
    return dict(read_json(folder / method / "0" / "budget.json"))


def _charged(folder: Path, method: str) -> dict[str, float]:
    """What a cell was charged, without what a clock or the system measured."""
    charged = _budget(folder, method)["charged"]
    return {name: count for name, count in charged.items() if name not in ("seconds", "peak_memory_mib")}


# -- what a run leaves ------------------------------------------------------------------------------------------------


def test_a_run_leaves_every_file(finished_tiny_run: Any) -> None:
    folder = finished_tiny_run.folder
    for name in ("suite.resolved.yaml", "provenance.json", "status.json", "results.parquet", "report/index.html"):
        assert (folder / name).is_file(), name
    for method in tiny_suite.METHODS:
        for name in CELL_FILES:
            assert (folder / method / "0" / name).exists(), (method, name)
    for kind in ("tables", "plots"):
        assert list((folder / "report" / kind).iterdir())
    status = read_json(folder / "status.json")
    assert status["cells"] == {f"{method}/0": "DONE" for method in tiny_suite.METHODS}
    assert status["machine_seconds"] > 0 and status["machine_peak_memory_mib"] > 0
    assert not list(folder.rglob("*.tmp"))


def test_provenance_says_what_ran(finished_tiny_run: Any) -> None:
    noted = read_json(finished_tiny_run.folder / "provenance.json")
    assert noted["seeds"] == [0] and noted["started"] <= noted["finished"]
    assert noted["versions"]["torch"] and noted["precision"].startswith("fp32")
    assert noted["methods"]["dpo"]["hyperparameters"]["schedule"]["learning_rate"] == 0.003
    assert noted["methods"]["best_of_n"]["kl"] == "analytic upper bound"
    assert noted["evaluators"]["gold"] == {"role": "diagnostic", "note": noted["evaluators"]["gold"]["note"]}
    asked = {"gold", "second_opinion", "proxy", "heldout_reward", "ai_judge", "win_rate", "kl", "behaviour"}
    assert set(noted["evaluators"]) == asked


def test_the_leaderboard_has_the_promised_columns_and_a_row_a_method(finished_tiny_run: Any) -> None:
    lines = (finished_tiny_run.folder / "report" / "tables" / "leaderboard.csv").read_text().splitlines()
    assert lines[0].split(",")[: COLUMNS.count(",") + 1] == COLUMNS.split(", ")
    assert [line.split(",")[0] for line in lines[1:]] == list(tiny_suite.METHODS)


def test_the_leaderboards_gold_is_that_of_the_stored_completions(finished_tiny_run: Any) -> None:
    board = alignarena.load_results(str(finished_tiny_run.folder)).leaderboard().set_index("method")
    values = set()
    for method in tiny_suite.METHODS:
        rows = read_jsonl(finished_tiny_run.folder / method / "0" / "completions.jsonl")
        assert len(rows) == 4 * 8
        parts = [sentiment.parts(row) for row in rows]
        for column, name in (("gold_reward", "gold"), ("on_topic", "on_topic"), ("finish_rate", "finished")):
            mean = sum(float(part[name] or 0.0) for part in parts) / len(parts)
            assert board.loc[method, column] == pytest.approx(mean, abs=1e-9)
        values.add(board.loc[method, "gold_reward"])
    assert 0.0 not in values and len(values) > 2  # the methods differ, and all of them earn something


# -- going on with a run ----------------------------------------------------------------------------------------------


def test_a_second_run_computes_nothing(copied_run: Any, no_model: Callable[[], None]) -> None:
    before = _scores(copied_run.folder)
    no_model()
    folder, failed = sweep.run(copied_run.suite, out=copied_run.folder)
    assert (folder, failed, _scores(folder)) == (copied_run.folder, [], before)


def test_a_cell_run_again_comes_from_the_cache(copied_run: Any) -> None:
    before, charged = _scores(copied_run.folder), _charged(copied_run.folder, "ppo")
    shutil.rmtree(copied_run.folder / "ppo")
    sweep.run(copied_run.suite, out=copied_run.folder)
    assert _scores(copied_run.folder) == before
    assert set(_budget(copied_run.folder, "ppo")["spent"].values()) == {0}
    assert _charged(copied_run.folder, "ppo") == charged
    assert all(stage["hit"] for stage in _budget(copied_run.folder, "ppo")["stages"])


def test_other_methods_and_seeds_join_the_run(
    tiny_suite_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALIGNARENA_CACHE", str(tmp_path / "cache"))
    run = tmp_path / "run"
    sweep.run(str(tiny_suite_file), out=run, methods=["sft"])
    sweep.run(str(tiny_suite_file), out=run, methods=["base"], seeds=[0, 1])
    folder = RunFolder.open(run)
    assert {cell: folder.state(*cell) for cell in folder.cells()} == {
        ("sft", 0): "DONE", ("sft", 1): "WAITING", ("base", 0): "DONE", ("base", 1): "DONE",
    }  # fmt: skip
    assert set(folder.provenance["methods"]) == {"sft", "base"} and folder.provenance["seeds"] == [0, 1]
    assert set(yaml.safe_load((run / "suite.resolved.yaml").read_text())["methods"]) == {"sft", "base"}


def test_another_suite_may_not_enter_the_folder(copied_run: Any) -> None:
    before = _scores(copied_run.folder)
    with pytest.raises(BadInput, match="holds a run of another suite or revision; choose another --out"):
        sweep.run(copied_run.suite, out=copied_run.folder, set={"sft.learning_rate": 1e-2})
    assert _scores(copied_run.folder) == before


def test_a_changed_hyperparameter_runs_its_cell_again(copied_run: Any) -> None:
    before = _scores(copied_run.folder)
    sweep.run(copied_run.suite, out=copied_run.folder, methods=["dpo"], set={"method.dpo.beta": 5.0})
    after = _scores(copied_run.folder)
    assert after.pop("dpo") != before.pop("dpo") and after == before


def test_seeds_of_other_settings_may_not_mix(
    tiny_suite_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALIGNARENA_CACHE", str(tmp_path / "cache"))
    run = tmp_path / "run"
    sweep.run(str(tiny_suite_file), out=run, methods=["sft", "dpo"], seeds=[0, 1])
    before = _scores(run)
    changed: dict[str, Any] = {"out": run, "methods": ["dpo"], "set": {"method.dpo.beta": 5.0}}
    with pytest.raises(BadInput, match=r"holds dpo/1, made by other settings.*run all its seeds again with --seeds"):
        sweep.run(str(tiny_suite_file), seeds=[0], **changed)
    assert _scores(run) == before
    assert sweep.run(str(tiny_suite_file), seeds=[0, 1], **changed)[1] == []


def test_a_data_file_that_changed_is_another_run(copied_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder.open(copied_run.folder)
    folder.update_status(data_files="what they held")
    monkeypatch.setattr(sweep, "files_digest", lambda config: "what they hold now")
    with pytest.raises(BadInput, match="made from other rows than the data files hold now; choose another --out"):
        sweep.run(copied_run.suite, out=copied_run.folder)
    monkeypatch.setattr(sweep, "files_digest", lambda config: None)  # gone: a finished run does not need them
    assert sweep.run(copied_run.suite, out=copied_run.folder)[1] == []
    monkeypatch.setattr(sweep, "files_digest", lambda config: "what came back")
    with pytest.raises(BadInput, match="made from other rows"):
        sweep.run(copied_run.suite, out=copied_run.folder)


def test_a_cell_that_is_written_anew_is_not_done_meanwhile(copied_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    again: dict[str, Any] = {"out": copied_run.folder, "methods": ["dpo"]}
    with monkeypatch.context() as patch:
        patch.setattr("alignarena.benchmarks.cell.save_policy", killed)
        with pytest.raises(KeyboardInterrupt):
            sweep.run(copied_run.suite, set={"method.dpo.beta": 5.0}, **again)
    before = _scores(copied_run.folder)["dpo"]  # of beta 5: not to be taken for those of the first
    assert RunFolder.open(copied_run.folder).state("dpo", 0) == "RUNNING"
    sweep.run(copied_run.suite, **again)
    assert _scores(copied_run.folder)["dpo"] != before


def test_what_a_method_cannot_do_in_this_suite_is_its_failure_alone(
    copied_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "METHODS", dict(registry.METHODS))  # forgotten after the test
    file = tmp_path / "too_long.py"
    file.write_text(TOO_LONG)
    registry.load_file(file)
    _, failed = sweep.run(
        copied_run.suite, out=copied_run.folder, methods=["too_long", "sft"], method_files=[file]
    )
    assert failed == ["too_long/0"]
    error = RunFolder.open(copied_run.folder).read_cell("too_long", 0).outcome["error"]
    assert error.startswith("RunFailed: ") and "max_prompt_tokens" in error


TOO_LONG = '''
"""Tells the policy more than a prompt has room for.

Differs from the paper: there is none.
"""
from dataclasses import dataclass

from alignarena.core.contract import Lab, Policy, Task
from alignarena.core.registry import method
from alignarena.methods.parts.instructions import instructed


@method("too_long", paper="none", family="baseline")
@dataclass(frozen=True)
class TooLong:
    """Samples under an instruction without end."""

    def align(self, task: Task, lab: Lab) -> Policy:
        lab.sample(task.policy, instructed(task.prompts, "w1 " * 500), stream="told")
        return task.policy
'''

KILLED = """
import os, signal, sys
from alignarena.benchmarks import sweep
from alignarena.harness import checkpoint, trainer
checkpoint.INTERVAL = 0.0  # a checkpoint whenever one is possible
loss, last = sys.argv[3], int(sys.argv[4])
step = trainer.Fit._step
def counted(fit, *args):
    if type(fit.loss).__name__ == loss and len(fit.log) == last:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(fit, *args)
trainer.Fit._step = counted
sweep.run(sys.argv[1], out=sys.argv[2])
"""


def test_a_killed_run_ends_as_one_left_alone(
    finished_tiny_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALIGNARENA_CACHE", str(tmp_path / "cache"))
    run = tmp_path / "run"
    for loss, last in (("DPOLoss", 3), ("PPOLoss", 5)):  # in the middle of an epoch; in the second phase
        command = [sys.executable, "-c", KILLED, finished_tiny_run.suite, str(run), loss, str(last)]
        killed = subprocess.run(command, capture_output=True, text=True, check=False)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert list((tmp_path / "cache").glob("*.partial/state/progress.json")), "there is something to go on from"
    assert RunFolder.open(run).state("dpo", 0) == "DONE" and RunFolder.open(run).state("ppo", 0) == "RUNNING"
    _, failed = sweep.run(finished_tiny_run.suite, out=run)
    assert failed == [] and not list((tmp_path / "cache").glob("*.partial"))
    for method in tiny_suite.METHODS:
        ours, theirs = run / method / "0", finished_tiny_run.folder / method / "0"
        for name in ("scores.jsonl", "completions.jsonl"):
            assert (ours / name).read_bytes() == (theirs / name).read_bytes(), (method, name)
        assert _charged(run, method) == _charged(finished_tiny_run.folder, method), method


# -- what is charged --------------------------------------------------------------------------------------------------


def test_base_is_charged_nothing_and_every_other_method_for_the_sft_policy(finished_tiny_run: Any) -> None:
    folder = finished_tiny_run.folder
    sft = _charged(folder, "sft")
    assert set(_charged(folder, "base").values()) == {0} and sft["trained_tokens"] > 0 and sft["labels"] == 0
    for method in ("best_of_n", "dpo", "ppo", "rejection_sampling"):
        stages = [stage["ledger"] for stage in _budget(folder, method)["stages"]]
        for name, count in _charged(folder, method).items():
            assert count == pytest.approx(sft[name] + sum(stage[name] for stage in stages)), (method, name)


def test_labels_are_equal_for_all_who_learn_from_preferences(finished_tiny_run: Any) -> None:
    labels = {method: _charged(finished_tiny_run.folder, method)["labels"] for method in tiny_suite.METHODS}
    assert labels.pop("base") == labels.pop("sft") == 0
    assert len(set(labels.values())) == 1 and labels["dpo"] == pytest.approx(6 * 4.585, abs=0.01)  # log2(4!) a prompt


def test_a_used_up_budget_is_an_end_and_no_failure(
    finished_tiny_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALIGNARENA_CACHE", str(finished_tiny_run.cache))
    stages = _budget(finished_tiny_run.folder, "rejection_sampling")["stages"]
    upto = next(i for i, stage in enumerate(stages) if stage["stage"] == "sample round 0")
    limit = int(sum(stage["ledger"]["sampled_tokens"] for stage in stages[: upto + 1]))
    given = {"budget.sampled_tokens": limit}  # reached by the first round: the second may not sample
    _, failed = sweep.run(finished_tiny_run.suite, out=tmp_path / "run", methods=["rejection_sampling"], set=given)
    assert failed == []
    cell = RunFolder.open(tmp_path / "run").read_cell("rejection_sampling", 0)
    assert cell.outcome["stopped"] == "budget" and cell.budget == {"sampled_tokens": limit}
    assert cell.charged.sampled_tokens == limit and len(cell.completions) == 32
    assert [stage["stage"] for stage in cell.stages if stage["verb"] == "sample"][-1] == "sample round 0"


# -- failures ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def fragile(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A registered method that fails while the list holds a reason."""
    registry.load_all()
    monkeypatch.setattr(registry, "METHODS", dict(registry.METHODS))
    reasons = ["it diverged"]

    @dataclass(frozen=True)
    class Fragile:
        """Raises, or is the SFT policy."""

        def align(self, task: Task, lab: Lab) -> Policy:
            if reasons:
                raise ValueError(reasons[0])
            return task.policy

    registry.method("fragile", paper="none")(Fragile)
    return reasons


def test_a_method_that_raises_is_a_row_of_the_report(copied_run: Any, fragile: list[str]) -> None:
    methods = ["fragile", "sft", "dpo"]
    (copied_run.folder / "dpo" / "0" / "DONE").unlink()  # so that there is work after the failure
    with pytest.raises(RunFailed, match="fragile/0 failed; see FAILED in"):
        alignarena.run(copied_run.suite, out=copied_run.folder, methods=methods)
    outcome = read_json(copied_run.folder / "fragile" / "0" / "FAILED")
    assert outcome["error"] == "ValueError: it diverged" and "in align" in outcome["traceback"]
    board = (copied_run.folder / "report" / "tables" / "leaderboard.csv").read_text()
    rows = {line.split(",")[0]: line for line in board.splitlines()}
    assert "FAILED" in rows["fragile"] and "DONE" in rows["dpo"]
    fragile.clear()
    _, failed = sweep.run(copied_run.suite, out=copied_run.folder, methods=methods)
    assert failed == []
    assert set(alignarena.load_results(str(copied_run.folder)).leaderboard()["status"]) == {"DONE"}
    assert not (copied_run.folder / "fragile" / "0" / "FAILED").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"data.sizes.train": 0}, r"data\.sizes\.train: must be at least 1"),
        ({"model.max_prompt_tokens": 2}, "no prompt is left for the split 'sft' .*max_prompt_tokens"),
        ({"data": {"dataset": "preferences"}, "feedback.annotator": "human"}, "no column 'rejected'"),
        ({"model.model_name_or_path": "/nowhere/model"}, "holds no config.json"),
    ],
)
def test_wrong_input_is_one_clear_error(
    given: dict[str, Any], said: str, tiny_suite_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALIGNARENA_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "half.jsonl"
    file.write_text('{"prompt": "a", "chosen": "b"}\n')
    if isinstance(given.get("data"), dict):
        given = {**given, "data": {**given["data"], "path": str(file)}}
    run = tmp_path / "run"
    with pytest.raises(BadInput, match=said):
        sweep.run(str(tiny_suite_file), out=run, methods=["sft"], set=given)
    assert not list(run.glob("sft/0/*"))
    _, failed = sweep.run(str(tiny_suite_file), out=run, methods=["sft"])  # the folder is still free for the right one
    assert failed == []


def test_a_model_that_cannot_be_fetched_is_one_error_and_not_six_failures(
    tiny_suite_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALIGNARENA_CACHE", str(tmp_path / "cache"))
    with pytest.raises(RunFailed, match=r"model 'nobody/no-such-model' cannot be loaded.*offline\?"):
        sweep.run(str(tiny_suite_file), out=tmp_path / "run", set={"model.model_name_or_path": "nobody/no-such-model"})
    assert not list((tmp_path / "run").rglob("FAILED"))


@pytest.mark.parametrize("where", ["run folder", "cache"])
def test_a_full_disk_ends_the_run_and_loses_nothing(
    where: str, copied_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _scores(copied_run.folder)
    shutil.rmtree(copied_run.folder / "ppo")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(copied_run.cache))

    with monkeypatch.context() as patch:
        if where == "cache":
            shutil.rmtree(copied_run.cache)
            patch.setattr(Cache, "put", full)
        else:
            patch.setattr("alignarena.core.files.os.fsync", full)
        with pytest.raises(RunFailed, match=r"cannot write|no space left") as caught:
            sweep.run(copied_run.suite, out=copied_run.folder)
    assert str(caught.value).count("\n") == 0 and "what was computed is kept" in str(caught.value)
    assert not list(copied_run.folder.rglob("FAILED")) and not list(copied_run.folder.rglob("*.tmp"))
    assert _scores(copied_run.folder) == {**before, "ppo": []}
    sweep.run(copied_run.suite, out=copied_run.folder)
    assert _scores(copied_run.folder) == before


# -- scoring again ----------------------------------------------------------------------------------------------------


def test_scoring_leaves_what_a_run_recorded_of_itself(copied_run: Any) -> None:
    def noted() -> dict[str, Any]:
        known = RunFolder.open(copied_run.folder).provenance
        return {key: value for key, value in known.items() if key != "evaluators"}

    before = noted()
    rescore.score(copied_run.folder, evaluators=["proxy", "kl"])
    assert noted() == before
    shutil.rmtree(copied_run.cache)
    with pytest.raises(BadInput, match="no longer holds the stage"):
        rescore.score(copied_run.folder, evaluators=["kl"])
    assert noted() == before


def test_without_completions_nothing_is_scored_and_nothing_lost(copied_run: Any) -> None:
    for name in tiny_suite.METHODS:
        (copied_run.folder / name / "0" / "completions.jsonl").unlink()
    before = _scores(copied_run.folder)
    with pytest.raises(BadInput, match="no completions are stored here"):
        rescore.score(copied_run.folder, evaluators=["behaviour"])
    assert _scores(copied_run.folder) == before


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["x", "run", "quickstart", "--set", "model.system_message=Be kind"],
         "alignarena run quickstart --set 'model.system_message=Be kind'"),
        (["ipykernel", "-f", "kernel.json"], "alignarena run runs/a/suite.resolved.yaml --out runs/a-again"),
    ],
)  # fmt: skip
def test_the_command_on_record_can_be_given_again(
    argv: list[str], command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    assert provenance._command(Path("runs/a")) == command


def test_scoring_completions_again_needs_no_model(
    copied_run: Any, no_model: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    before = _scores(copied_run.folder)
    path = copied_run.folder / "dpo" / "0" / "completions.jsonl"
    rows = read_jsonl(path)
    rows[0]["completion_ids"] = [1] * 99  # as if an evaluator had been wrong
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    no_model()
    shutil.rmtree(copied_run.cache)
    assert cli.main(["score", str(copied_run.folder), "--evaluators", "behaviour"]) == 0
    assert "dpo" in capsys.readouterr().out
    after = _scores(copied_run.folder)
    changed = [
        (method, row["metric"], row["value"])
        for method in tiny_suite.METHODS
        for row in after[method]
        if row not in before[method]
    ]
    assert changed == [("dpo", "length", 99.0)]
    assert {method: len(rows) for method, rows in after.items()} == {m: len(rows) for m, rows in before.items()}


def test_scoring_by_models_takes_them_from_the_cache(copied_run: Any) -> None:
    before = _scores(copied_run.folder)
    rescore.score(copied_run.folder, evaluators=["proxy", "win_rate", "kl"])

    def key(row: dict[str, Any]) -> tuple[Any, ...]:
        return row["evaluator"], row["metric"], row["prompt_id"], row["sample"]

    for method, rows in _scores(copied_run.folder).items():
        for new, old in zip(sorted(rows, key=key), sorted(before[method], key=key), strict=True):
            assert key(new) == key(old) and new["value"] == pytest.approx(old["value"], abs=1e-6)
    shutil.rmtree(copied_run.cache)
    with pytest.raises(BadInput, match="no longer holds the stage"):
        rescore.score(copied_run.folder, evaluators=["kl"])
