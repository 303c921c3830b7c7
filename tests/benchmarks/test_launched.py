"""A run whose cells several processes share, as ``accelerate launch -m alignarena run`` starts it."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import alignarena
from alignarena.benchmarks import sweep
from alignarena.core.errors import RunFailed
from alignarena.core.files import read_json

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1",
               "ACCELERATE_USE_CPU": "true"}  # fmt: skip


def test_two_processes_make_one_run_and_one_report(tiny_suite_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "alignarena",
        "run", str(tiny_suite_file), "--methods", "sft,d_rlaif", "--out", str(run),
        "--set", "method.d_rlaif.updates=1",
    ]  # fmt: skip
    environment = {**ENVIRONMENT, "ALIGNARENA_CACHE": str(tmp_path / "cache")}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            printed, complaints = process.communicate(timeout=200)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, complaints
    assert printed.count("report: ") == 1
    assert list(alignarena.load_results(str(run)).leaderboard()["status"]) == ["DONE", "DONE"]
    assert read_json(run / "extra" / "labeler.json")["rows"]  # every process knew that a labeler had been asked
    assert (run / "report" / "index.html").is_file()


@pytest.mark.parametrize(("error", "alone"), [(RuntimeError("out of memory"), True), (RunFailed("it diverged"), False)])
def test_what_one_process_alone_may_have_met_ends_the_launch(
    error: Exception, alone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Two:
        num_processes = 2

    assert not sweep._may_be_of_one_process(error)
    state: Any = Two
    monkeypatch.setattr(sweep, "processes", state)
    assert sweep._may_be_of_one_process(error) is alone
