"""How many cells run at a time, and what each worker gets of the machine."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from alignarena.benchmarks import jobs
from alignarena.core import registry
from alignarena.core.contract import Lab, Policy, Task
from alignarena.core.errors import BadInput


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A machine to describe: 64 cores and no GPU, one process."""
    one = SimpleNamespace(cores=64, gpus=0, processes=1, memory=2**20)

    def state(cpu: bool) -> SimpleNamespace:
        device = SimpleNamespace(type="cuda" if one.gpus else "cpu")
        return SimpleNamespace(num_processes=one.processes, device=device)

    monkeypatch.setattr(jobs, "PartialState", state)
    monkeypatch.setattr(jobs, "set_threads", lambda: one.cores)
    monkeypatch.setattr(jobs, "_memory_mib", lambda: one.memory)
    monkeypatch.setattr(jobs.torch.cuda, "device_count", lambda: one.gpus)
    return one


def test_by_default_one_a_gpu_or_one_for_8_cores(machine: SimpleNamespace) -> None:
    assert jobs.chosen_jobs(None, ["sft"], ()) == 8
    machine.cores = 15
    assert jobs.chosen_jobs(None, ["sft"], ()) == 1
    machine.cores = 2
    assert jobs.chosen_jobs(None, ["sft"], ()) == 1
    assert jobs.chosen_jobs(2, ["sft"], ()) == 2
    machine.gpus = 4
    assert jobs.chosen_jobs(None, ["sft"], ()) == 4
    machine.processes = 4  # they share every cell already
    assert jobs.chosen_jobs(None, ["sft"], ()) == 1


def test_memory_bounds_what_is_not_asked_for(machine: SimpleNamespace) -> None:
    machine.memory = 17_000
    assert jobs.chosen_jobs(None, ["sft"], (), most_threads=1) == 3
    assert jobs.chosen_jobs(16, ["sft"], (), most_threads=1) == 16
    machine.memory = 2_000
    assert jobs.chosen_jobs(None, ["sft"], (), most_threads=1) == 1


def test_what_cannot_be_is_bad_input(machine: SimpleNamespace) -> None:
    with pytest.raises(BadInput, match="--jobs 0: must be at least 1"):
        jobs.chosen_jobs(0, ["sft"], ())
    machine.processes = 2
    assert jobs.chosen_jobs(1, ["sft"], ()) == 1
    with pytest.raises(BadInput, match="--jobs 2: the 2 processes of this launch share every cell"):
        jobs.chosen_jobs(2, ["sft"], ())


def test_a_method_that_workers_cannot_find_keeps_the_run_in_one_process(
    machine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.load_all()
    monkeypatch.setattr(registry, "METHODS", dict(registry.METHODS))

    @registry.method("of_a_notebook", paper="none")
    @dataclass(frozen=True)
    class OfANotebook:
        def align(self, task: Task, lab: Lab) -> Policy:
            return task.policy

    assert jobs.chosen_jobs(None, ["sft", "of_a_notebook"], ()) == 1
    with pytest.raises(BadInput, match="the method 'of_a_notebook' is known to this process alone"):
        jobs.chosen_jobs(2, ["sft", "of_a_notebook"], ())
    assert jobs.chosen_jobs(2, ["sft", "of_a_notebook"], [__file__]) == 2  # a file that workers will load


def test_a_limit_of_threads_a_cell_makes_room_for_more_cells(machine: SimpleNamespace) -> None:
    machine.cores = 6
    assert [jobs.chosen_jobs(None, ["sft"], (), most) for most in (0, 1, 2, 4, 8)] == [1, 6, 3, 1, 1]
    assert jobs.chosen_jobs(2, ["sft"], (), 1) == 2
    assert [jobs.threads(1, 2, 1), jobs.threads(2, 2, 1), jobs.threads(1, 2, 8)] == [1, 1, 3]
    assert jobs.environment(0, 2, 1)["OMP_NUM_THREADS"] == "1"
    machine.gpus = 2
    assert jobs.chosen_jobs(None, ["sft"], (), 1) == 2


def test_a_process_gets_its_threads_back() -> None:
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), jobs.own_threads():
        torch.set_num_threads(before + 1)
        raise ZeroDivisionError
    assert torch.get_num_threads() == before


def test_workers_divide_the_cores(machine: SimpleNamespace) -> None:
    machine.cores = 10
    assert [jobs.threads(1, 4), jobs.threads(2, 4), jobs.threads(4, 4), jobs.threads(1, 16)] == [2, 5, 10, 1]
    given = jobs.environment(0, 4)
    assert given["OMP_NUM_THREADS"] == given["RAYON_NUM_THREADS"] == "2"


def test_each_worker_sees_one_gpu_of_those_this_process_sees(
    machine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert "CUDA_VISIBLE_DEVICES" not in jobs.environment(0, 2)
    machine.gpus = 2
    assert [jobs.environment(i, 4)["CUDA_VISIBLE_DEVICES"] for i in range(4)] == ["0", "1", "0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-3a")
    assert [jobs.environment(i, 2)["CUDA_VISIBLE_DEVICES"] for i in range(2)] == ["5", "GPU-3a"]


def test_a_worker_is_no_process_of_a_launcher(machine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("MASTER_PORT", "29500")
    assert not {"LOCAL_RANK", "MASTER_PORT"} & jobs.environment(0, 2).keys()
