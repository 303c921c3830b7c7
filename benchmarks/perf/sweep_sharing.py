"""``python -m alignarena.benchmarks.perf.sweep_sharing``: what a sweep saves by sharing, and how cost grows with size.

Writes ``sweep.json``. Every run is a process of its own with an empty cache; nothing else may use the machine.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from alignarena.benchmarks.jobs import chosen_jobs
from alignarena.benchmarks.suite import load_suite
from alignarena.core.errors import AlignArenaError, RunFailed
from alignarena.core.files import read_json, write_json

FILE = "sweep.json"
SIX = ("base", "sft", "best_of_n", "dpo", "ppo", "rejection_sampling")  # rows of the first quickstart
ALL = (*SIX, "prompted", "cpl", "rest", "hir", "rlaif", "constitutional_ai")  # its rows today
_SAMPLED_ONLY = {"base", "best_of_n", "prompted"}


@dataclass(frozen=True)
class Cost:
    """What one process cost."""

    seconds: float
    cpu_seconds: float


def sweep_sharing(name: str, methods: Sequence[str], bar: float) -> dict[str, Any]:
    """Return the cost of a sweep of the quickstart over the summed cost of its trained methods run alone.

    These go side by side, each in one job, as many at a time as the sweep runs cells: both sides have the same threads
    and the same neighbours, and the seconds of each are summed.

    Raises:
        RunFailed: A run did not finish.
    """
    together = _run("quickstart", ["--methods", ",".join(methods)])
    trained = [one for one in methods if one not in _SAMPLED_ONLY]
    with ThreadPoolExecutor(chosen_jobs(None, methods, (), load_suite("quickstart").threads)) as pool:
        costs = pool.map(lambda one: _run("quickstart", ["--methods", one, "--jobs", "1"]), trained)
        alone = dict(zip(trained, costs, strict=True))
    sums = {kind: sum(getattr(cost, kind) for cost in alone.values()) for kind in ("seconds", "cpu_seconds")}
    return {
        "name": name, "suite": "quickstart", "rows": list(methods),
        "opponent": "its trained methods run alone, empty caches",
        "ratio": together.seconds / sums["seconds"], "cpu_ratio": together.cpu_seconds / sums["cpu_seconds"],
        "bar": bar, "met": together.seconds / sums["seconds"] <= bar,
        "ours": together.seconds, "theirs": sums["seconds"], "unit": "seconds",
        "together": together.__dict__, "alone": {method: cost.__dict__ for method, cost in alone.items()},
    }  # fmt: skip


def _run(suite: str, options: Sequence[str]) -> Cost:
    """Run a suite in a process of its own, from an empty cache into a new folder."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "alignarena", "run", suite, "--out", str(Path(folder) / "run"), *options]
        environment = {**os.environ, "ALIGNARENA_CACHE": str(Path(folder) / "cache")}
        with open(Path(folder) / "log", "w+b") as log:
            start = time.perf_counter()
            actions = [(os.POSIX_SPAWN_DUP2, log.fileno(), 1), (os.POSIX_SPAWN_DUP2, log.fileno(), 2)]
            child = os.posix_spawn(sys.executable, command, environment, file_actions=actions)
            _, status, usage = os.wait4(child, 0)  # of this child and those it waited for, and of no other
            seconds = time.perf_counter() - start
            if os.waitstatus_to_exitcode(status):
                log.seek(0)
                last = log.read().decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
                raise RunFailed(f"{' '.join(command[1:])} did not finish: {last[0]}")
        return Cost(seconds, usage.ru_utime + usage.ru_stime)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure them and write each as it ends."""
    parser = argparse.ArgumentParser(prog="python -m alignarena.benchmarks.perf.sweep_sharing", description=__doc__)
    parser.add_argument("--out", default="runs/bench", help="folder of sweep.json")
    parser.add_argument("--only", choices=_MEASURES, help="one of them")
    args = parser.parse_args(argv)
    path = Path(args.out) / FILE
    try:
        for name, measure in _MEASURES.items():
            if args.only in (None, name):
                write_json(path, read_json(path, {}) | {name: measure()})
                print(f"{name}: written to {path}", flush=True)
    except AlignArenaError as error:
        print("bench-sweep:", error, file=sys.stderr)
        return error.exit_status
    return 0


def _growth() -> list[dict[str, Any]]:
    from alignarena.benchmarks.perf.__main__ import quieten
    from alignarena.benchmarks.perf.bench import new_bench
    from alignarena.benchmarks.perf.growth import growth

    quieten()
    with tempfile.TemporaryDirectory() as folder:
        return growth(new_bench("smollm2-135m-instruct", 1, Path(folder)))


_MEASURES: dict[str, Callable[[], Any]] = {
    "growth": _growth,
    "sweep_sharing": partial(sweep_sharing, "sweep_sharing", SIX, bar=0.6),
    "whole_sweep_sharing": partial(sweep_sharing, "whole_sweep_sharing", ALL, bar=0.5),
}


if __name__ == "__main__":
    raise SystemExit(main())
