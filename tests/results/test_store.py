from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

from alignarena.core.errors import BadInput
from alignarena.core.records import Ledger
from alignarena.results.cells import FRAME_COLUMNS
from alignarena.results.convergence import Rise
from alignarena.results.store import RunFolder

RISING = Rise(points=30, fitted=10, rise=0.2, share=0.3, p_value=0.001)


def test_a_cell_reads_back_as_written(finished_run: RunFolder, run_folders: ModuleType) -> None:
    cell = finished_run.read_cell("ppo", 0)
    completions, scores = run_folders.sampled("ppo", 0)
    assert (cell.state, cell.outcome["stopped"], cell.track) == ("DONE", "finished", "labels")
    assert (cell.completions, cell.scores) == (completions, scores)
    assert cell.charged == Ledger.from_dict(run_folders.budget("ppo")["charged"])
    assert cell.budget == {"labels": 500.0}
    assert cell.config["beta"] == 0.1


def test_cells_come_in_the_suites_order_then_those_found(tmp_path: Path, run_folders: ModuleType) -> None:
    folder = run_folders.start(tmp_path, ("sft", "dpo"), (1, 0))
    folder.finish_cell("added", 3)
    (tmp_path / "report" / "tables").mkdir(parents=True)
    assert folder.cells() == [("sft", 0), ("sft", 1), ("dpo", 0), ("dpo", 1), ("added", 3)]


def test_done_and_failed_replace_each_other(tmp_path: Path, run_folders: ModuleType) -> None:
    folder = run_folders.start(tmp_path, ("sft",), (0,))
    assert folder.state("sft", 0) == "WAITING"
    folder.mark("sft", 0, "RUNNING")
    assert folder.state("sft", 0) == "RUNNING"
    folder.fail_cell("sft", 0, "out of memory", "trace")
    assert folder.read_cell("sft", 0).outcome == {"error": "out of memory", "traceback": "trace"}
    folder.finish_cell("sft", 0, "budget", rise=vars(RISING))
    cell = folder.read_cell("sft", 0)
    assert (cell.state, cell.outcome, cell.converged) == ("DONE", {"stopped": "budget", "rise": vars(RISING)}, False)
    assert not (tmp_path / "sft/0/FAILED").exists()
    assert folder.status["cells"] == {"sft/0": "DONE"}


def test_a_killed_cell_reads_as_far_as_it_got(tmp_path: Path, run_folders: ModuleType) -> None:
    folder = run_folders.start(tmp_path, ("sft", "dpo"), (0,))
    folder.append_metrics("dpo", 0, [{"step": 0, "loss": 0.7}])
    with open(tmp_path / "dpo/0/metrics.jsonl", "ab") as file:
        file.write(b'{"step": 1, "lo')
    cell = folder.read_cell("dpo", 0)
    assert cell.metrics == [{"step": 0, "loss": 0.7}]
    assert (cell.completions, cell.scores, cell.charged) == ([], [], Ledger())
    assert folder.frame().empty


def test_parquet_is_tidy_and_complete(finished_run: RunFolder, run_folders: ModuleType) -> None:
    frame = pd.read_parquet(finished_run.path / "results.parquet")
    assert list(frame.columns) == FRAME_COLUMNS
    assert len(frame) == sum(len(run_folders.sampled(method, 0)[1]) for method in run_folders.METHODS)
    assert set(frame.loc[frame["prompt_id"] == "p011", "cluster"]) == {"topic-5"}
    assert frame.loc[frame["metric"] == "sentiment", "value"].isna().any()


def test_a_scores_own_cluster_comes_before_that_of_its_prompts_completions(
    tmp_path: Path, run_folders: ModuleType
) -> None:
    folder = run_folders.quickstart(tmp_path / "run", methods=("sft",))
    asked = {"sample": 0, "evaluator": "xstest", "metric": "xstest_refusal", "value": 1.0}  # no completion has them
    rows = [{"prompt_id": f"xstest/{i}", "cluster": "xstest/homonyms", **asked} for i in range(2)]
    rows += [{"prompt_id": "p011", "cluster": None, **asked}, {"prompt_id": "pair-7", **asked}]
    folder.write_cell("sft", 0, scores=rows)
    assert list(folder.frame()["cluster"]) == ["xstest/homonyms", "xstest/homonyms", "topic-5", "pair-7"]


def test_opening_what_is_no_run_folder(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no suite\.resolved\.yaml"):
        RunFolder.open(tmp_path)
    with pytest.raises(BadInput, match="not a folder"):
        RunFolder.open(tmp_path / "none")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("suite.resolved.yaml", "a: [", "not YAML"),
        ("suite.resolved.yaml", "- a", "expected a mapping"),
        ("status.json", "{", "not JSON"),
        ("extra/t.json", '{"rows": []}', "columns and rows"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, run_folders: ModuleType, name: str, text: str, message: str) -> None:
    folder = run_folders.start(tmp_path, ("sft",), (0,))
    (tmp_path / "extra").mkdir()
    (tmp_path / name).write_text(text)
    with pytest.raises(BadInput, match=message):
        _ = (folder.suite, folder.status, folder.extra())


def test_progress_is_noted_until_a_cell_ends(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    assert folder.progress("dpo/0") == {}
    folder.note_progress("dpo/0", {"stage": "fit DPOLoss", "done": 1, "total": 2, "tokens_per_second": 3.0})
    folder.note_progress("shared/0", {"stage": "fit SFTLoss", "done": 1, "total": 2, "tokens_per_second": 3.0})
    assert folder.progress("dpo/0")["stage"] == "fit DPOLoss" and folder.progress("dpo/0")["at"] > 0
    folder.finish_cell("dpo", 0)
    assert folder.progress("dpo/0") == {} and folder.progress("shared/0")["stage"] == "fit SFTLoss"
    assert folder.cells() == [("dpo", 0)]  # no note is taken for a cell
