"""How many cells run at a time on this machine, and what part of it each worker gets."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from alignarena.core import registry
from alignarena.core.errors import BadInput
from alignarena.harness.device import set_threads

# Where a suite sets no threads, results should not depend on how few cores there are. Side by side is faster even on
# 2 cores: the quickstart of 6 methods took 459 s in two workers with a thread each, 557 s in one process with both.
_CORES_A_JOB = 8
_MIB_A_JOB = 5632  # what the largest worker of the quickstart holds at its peak (5,465)
# What a launcher tells the one process it started: workers that believed it would all meet at its port.
_OF_A_LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def processes() -> PartialState:
    """Return the processes of this launch. On CPUs accelerate takes each for one alone, unless it is told of them."""
    launched = int(os.environ.get("WORLD_SIZE", "1")) > 1
    on_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    return PartialState(cpu=launched and on_cpu)


def chosen_jobs(asked: int | None, methods: Iterable[str], files: Sequence[str | Path], most_threads: int = 0) -> int:
    """Return how many cells run at a time: what was asked for, else what the machine and the methods allow.

    Args:
        asked: By the user, or ``None``.
        methods: The registered names that will run.
        files: Method files that workers can load.
        most_threads: CPU threads that a cell uses at most; 0 for no limit.

    Raises:
        BadInput: Not a positive number, or more than one where workers cannot be.
    """
    if asked is not None and asked < 1:
        raise BadInput(f"--jobs {asked}: must be at least 1")
    if asked == 1:
        return 1
    several, only_here = processes().num_processes, list(_only_here(methods, files))
    if asked is None:
        return 1 if several > 1 or only_here else _jobs_of_this_machine(most_threads)
    if several > 1:
        raise BadInput(f"--jobs {asked}: the {several} processes of this launch share every cell; leave one out")
    if only_here:
        raise BadInput(
            f"--jobs {asked}: the method {only_here[0]!r} is known to this process alone; put it in a file of its own "
            "and give that as a method file"
        )
    return asked


def _jobs_of_this_machine(most_threads: int) -> int:
    kind = processes().device.type
    if kind == "cuda":
        return torch.cuda.device_count()
    if kind != "cpu":
        return 1
    return max(1, min(set_threads() // (most_threads or _CORES_A_JOB), _memory_mib() // _MIB_A_JOB))


def _memory_mib() -> int:
    return int(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20)


def _only_here(methods: Iterable[str], files: Sequence[str | Path]) -> Iterator[str]:
    """Yield the methods that a fresh process would not find, such as one defined in a notebook."""
    points = importlib.metadata.entry_points(group=registry.ENTRY_POINT_GROUP)
    packages = {"alignarena", *(point.module.partition(".")[0] for point in points)}
    given = {Path(file).resolve() for file in files}
    for name in methods:
        module = registry.find(name).module
        file = getattr(sys.modules.get(module), "__file__", None)
        if module.partition(".")[0] not in packages and (file is None or Path(file).resolve() not in given):
            yield name


def threads(parts: int, jobs: int, most: int = 0) -> int:
    """Return the threads of so many of ``jobs`` equal parts of the cores (of OMP_NUM_THREADS, where that is set).

    Args:
        parts: How many.
        jobs: Of how many.
        most: Threads that a cell uses at most; 0 for no limit.
    """
    share = max(1, set_threads() * parts // jobs)
    return min(most, share) if most else share


@contextmanager
def own_threads() -> Iterator[None]:
    """Give this process its threads back after a block in which a cell may take fewer."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def environment(number: int, jobs: int, most_threads: int = 0) -> dict[str, str]:
    """Return the environment of a worker: its threads, its GPU, and this process's own paths of modules."""
    inherited = {name: value for name, value in os.environ.items() if name not in _OF_A_LAUNCHER}
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
    share = str(threads(1, jobs, most_threads))
    return {**inherited, "PYTHONPATH": paths, "OMP_NUM_THREADS": share, "RAYON_NUM_THREADS": share, **_gpu(number)}


def _gpu(number: int) -> dict[str, str]:
    count = torch.cuda.device_count()
    if not count:
        return {}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = visible.split(",") if visible else list(map(str, range(count)))
    return {"CUDA_VISIBLE_DEVICES": devices[number % count]}
