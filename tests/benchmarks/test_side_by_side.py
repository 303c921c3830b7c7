"""Cells in two workers: the same results, and what remains when methods, workers or the whole run end badly."""

from __future__ import annotations

import _thread
import os
import shutil
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import tiny_suite

import alignarena
from alignarena.benchmarks import sweep
from alignarena.benchmarks.side_by_side import SideBySide, Task, startable, tasks
from alignarena.benchmarks.worker_process import WorkerDied, WorkerProcess
from alignarena.core import registry
from alignarena.core.errors import BadInput, RunFailed
from alignarena.core.files import read_json
from alignarena.results.store import RunFolder

VERDICTS = ["method", "gold_reward", "gold_vs_sft", "win_rate", "kl", "labels", "verdict_vs_sft", "status"]

# Methods of a file, as workers load no others. CALM names a file whose presence lets them end well.
BAD_ENDS = '''
"""Methods that end badly until told not to."""

import errno
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from alignarena.core.registry import method


def calm():
    return Path(os.environ["CALM"]).exists()


@method("killed", paper="none")
@dataclass(frozen=True)
class Killed:
    """Out of memory, as it were."""

    def align(self, task, lab):
        print("a print must not come between the replies")
        if not calm():
            os.kill(os.getpid(), signal.SIGKILL)
        return task.policy


@method("fragile", paper="none")
@dataclass(frozen=True)
class Fragile:
    """Raises."""

    def align(self, task, lab):
        if not calm():
            raise ValueError("it diverged")
        return task.policy


@method("no_space", paper="none")
@dataclass(frozen=True)
class NoSpace:
    """Finds the disk full."""

    def align(self, task, lab):
        raise OSError(errno.ENOSPC, "No space left on device")
'''

ENDLESS = '''
"""Says who it is and never ends."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from alignarena.core.registry import method


@method("endless", paper="none")
@dataclass(frozen=True)
class Endless:
    def align(self, task, lab):
        Path(os.environ["CALM"]).write_text(str(os.getpid()))
        time.sleep(600)
'''


@pytest.fixture
def bad_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of methods that end badly; forgotten after the test."""
    registry.load_all()
    monkeypatch.setattr(registry, "METHODS", dict(registry.METHODS))
    monkeypatch.setenv("CALM", str(tmp_path / "calm"))
    file = tmp_path / "bad_ends.py"
    file.write_text(BAD_ENDS)
    return file


# -- the order of work ------------------------------------------------------------------------------------------------


def test_shared_work_comes_first_and_the_longest_cells_next() -> None:
    todo = [(name, seed) for seed in (0, 1) for name in ("base", "dpo", "ppo")]
    planned = tasks(todo, 5)
    assert [task.name for task in planned] == [
        "shared/0", "shared/1", "base answers/0", "base answers/1", "ppo/0", "ppo/1", "dpo/0", "dpo/1", "base/0",
        "base/1", "checks/0",
    ]  # fmt: skip
    assert [task.parts for task in planned] == [2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1]
    assert [task.parts for task in tasks(todo, 5, most_threads=1)] == [1] * 11  # more parts would give no more threads
    baselines = tasks([("prompted", 0), ("best_of_n", 0)], 2, rewarded={"best_of_n"})
    assert [task.name for task in baselines[2:]] == ["best_of_n/0", "prompted/0", "checks/0"]


def test_the_base_model_answers_beside_the_shared_work() -> None:
    planned = tasks([("sft", 0), ("base", 0)], 2, most_threads=1)
    assert [task.name for task in startable(planned, [], 2)] == ["shared/0", "base answers/0"]
    assert startable(planned, [], 1) == planned[:1]


def test_a_cell_waits_for_the_shared_work_of_its_seed_and_for_a_free_part_of_the_machine() -> None:
    planned = tasks([("dpo", seed) for seed in (0, 1, 2)], 2)
    shared, cells = planned[:3], planned[3:-1]
    assert startable(planned, [], 2) == shared[:2]
    assert startable([shared[2], *cells], [shared[1]], 2) == [shared[2]]
    assert startable(cells, [shared[1], shared[2]], 2) == []
    assert startable(cells, [shared[2]], 2) == [cells[0]]
    alone = Task("share", 0, parts=2)
    assert startable([Task("cell", 0, "dpo")], [alone], 2) == []  # it has all threads


def test_methods_without_the_reward_model_begin_beside_it() -> None:
    share, reward, ppo, dpo, check = tasks([("dpo", 0), ("ppo", 0)], 2, most_threads=1, rewarded={"ppo"})
    assert [task.name for task in (share, reward, ppo, dpo)] == ["shared/0", "reward model/0", "ppo/0", "dpo/0"]
    assert startable([share, reward, ppo, dpo], [], 2) == [share]
    assert startable([reward, ppo, dpo], [share], 2) == []
    assert startable([reward, ppo, dpo], [], 2) == [reward, dpo]
    assert startable([ppo, dpo], [reward], 2) == [dpo]
    assert startable([ppo, check], [dpo], 2) == [ppo]
    assert startable([check], [ppo], 2) == [check]
    assert startable([check], [reward], 2) == []
    other_seed = Task("cell", 1, "ppo", takes_reward=True)
    assert startable([other_seed], [reward], 2) == [other_seed]
    assert [task.verb for task in tasks([("dpo", 0)], 2, rewarded=())] == ["share", "reward", "cell", "check"]


def test_a_worker_that_dies_in_shared_work_ends_the_run(tmp_path: Path) -> None:
    future: Future[dict[str, Any]] = Future()
    future.set_exception(WorkerDied("its worker process was ended by SIGKILL"))
    side_by_side = SideBySide(RunFolder(tmp_path), ["sft"], [0], [], 2)
    with pytest.raises(RunFailed, match=r"shared/0: its worker process was ended by SIGKILL; run the same command"):
        side_by_side._done(Task("share", 0), future)


@pytest.mark.parametrize("error", [BadInput("the model is not there"), RunFailed("the disk is full")])
def test_an_error_that_no_method_made_is_the_runs(error: BadInput | RunFailed, tmp_path: Path) -> None:
    future: Future[dict[str, Any]] = Future()
    future.set_result({"error": str(error), "exit_status": error.exit_status, "peak_memory_mib": 1.0})
    with pytest.raises(type(error), match=str(error)):
        SideBySide(RunFolder(tmp_path), ["sft"], [0], [], 2)._done(Task("cell", 0, "sft"), future)


def test_the_states_that_several_write_are_all_kept(tmp_path: Path) -> None:
    def mark(method: str) -> None:
        folder = RunFolder(tmp_path)  # of its own, as a process has
        for seed in range(20):
            folder.mark(method, seed, "DONE")

    writers = [Thread(target=mark, args=(name,)) for name in ("a", "b", "c")]
    for one in writers:
        one.start()
    for one in writers:
        one.join()
    assert len(RunFolder(tmp_path).status["cells"]) == 60


# -- whole runs -------------------------------------------------------------------------------------------------------


def test_two_workers_make_the_run_that_one_process_makes(
    finished_tiny_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_model: Callable[[], None]
) -> None:
    monkeypatch.setenv("ALIGNARENA_CACHE", str(tmp_path / "cache"))
    no_model()  # in this process: the workers load it
    results = alignarena.run(finished_tiny_run.suite, out=tmp_path / "run", jobs=2)
    alone = alignarena.load_results(str(finished_tiny_run.folder))
    assert results.leaderboard()[VERDICTS].equals(alone.leaderboard()[VERDICTS])
    for method in tiny_suite.METHODS:
        for name in ("completions.jsonl", "scores.jsonl", "metrics.jsonl", "config.yaml"):
            ours, theirs = (folder / method / "0" / name for folder in (tmp_path / "run", finished_tiny_run.folder))
            assert ours.read_bytes() == theirs.read_bytes(), (method, name)
    status = read_json(tmp_path / "run" / "status.json")
    assert status["cells"] == {f"{method}/0": "DONE" for method in tiny_suite.METHODS}
    assert status["machine_peak_memory_of"].startswith("the sum of the peaks of 2 workers")
    assert status["machine_peak_memory_mib"] > 0 and status["machine_seconds"] > 0
    noted = read_json(tmp_path / "run" / "provenance.json")
    assert noted["started"] <= noted["finished"] and set(noted["methods"]) == set(tiny_suite.METHODS)
    monkeypatch.setattr(WorkerProcess, "start", lambda *_: pytest.fail("a finished run starts no worker"))
    assert sweep.run(finished_tiny_run.suite, out=tmp_path / "run", jobs=2)[1] == []


def test_a_killed_worker_and_a_failing_method_cost_their_cells_alone(copied_run: Any, bad_ends: Path) -> None:
    shutil.rmtree(copied_run.folder / "dpo")  # so that there is work beside them
    given: dict[str, Any] = {
        "out": copied_run.folder, "methods": ["killed", "fragile", "dpo"], "method_files": [bad_ends], "jobs": 2,
    }  # fmt: skip
    registry.load_file(bad_ends)
    assert sweep.run(copied_run.suite, **given)[1] == ["killed/0", "fragile/0"]
    folder = RunFolder.open(copied_run.folder)
    assert folder.read_cell("killed", 0).outcome["error"].startswith("its worker process was ended by SIGKILL; out of")
    assert folder.read_cell("fragile", 0).outcome["error"] == "ValueError: it diverged"
    assert "in align" in folder.read_cell("fragile", 0).outcome["traceback"]
    assert folder.state("dpo", 0) == "DONE"
    bad_ends.with_name("calm").touch()
    assert sweep.run(copied_run.suite, **{**given, "jobs": 1})[1] == []  # any number of jobs goes on with a run
    assert {folder.state(name, 0) for name in ("killed", "fragile", "dpo")} == {"DONE"}


def test_a_full_disk_ends_the_run_and_fails_no_cell(copied_run: Any, bad_ends: Path) -> None:
    registry.load_file(bad_ends)
    shutil.rmtree(copied_run.folder / "dpo")
    with pytest.raises(RunFailed, match="no space left for"):
        sweep.run(copied_run.suite, out=copied_run.folder, methods=["no_space", "dpo"], method_files=[bad_ends], jobs=2)
    assert not list(copied_run.folder.rglob("FAILED"))


def test_an_interrupt_ends_the_workers_too(copied_run: Any, bad_ends: Path) -> None:
    bad_ends.write_text(ENDLESS)
    registry.load_file(bad_ends)
    shutil.rmtree(copied_run.folder / "dpo")
    calm = bad_ends.with_name("calm")
    Thread(target=lambda: (_until(calm.is_file, 60), _thread.interrupt_main()), daemon=True).start()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            sweep.run(
                copied_run.suite, out=copied_run.folder, methods=["endless", "dpo"], method_files=[bad_ends], jobs=2
            )
    finally:
        signal.signal(signal.SIGINT, before)
    with pytest.raises(ProcessLookupError):
        os.kill(int(calm.read_text()), 0)
    assert RunFolder.open(copied_run.folder).state("endless", 0) == "RUNNING"


def _until(holds: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)
