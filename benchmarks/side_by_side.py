"""Independent cells at the same time, in worker processes: each has a part of the cores, or a GPU of its own.

Every cell draws by names and takes shared stages from the cache, so what it computes depends neither on the others nor
on their order: a run of two workers equals one of one byte for byte while their cells have as many threads, which a
suite's ``threads: 1`` sees to. Another number of threads may add up in another order. Measured with 1 and 2 threads on
CPU: SmolLM2-135M's logits and gradients are equal in bf16 and fp32; PPO on the tests' two-layer model ends with weights
that differ by 1e-6, and with the same completions.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from alignarena.benchmarks.jobs import environment, threads
from alignarena.benchmarks.worker_display import WorkerDisplay
from alignarena.benchmarks.worker_process import WorkerDied, WorkerProcess
from alignarena.core import registry
from alignarena.core.errors import BadInput, RunFailed
from alignarena.harness.meter import lifetime_peak_mib
from alignarena.results.store import RunFolder

CellKey = tuple[str, int]  # method and seed
_BASE = "base"  # the method whose answers need no SFT policy
_BEGINS_WITH: dict[str, tuple[str, ...]] = {
    "share": (), "base": (), "reward": ("share",), "check": ("share", "reward"),
}  # fmt: skip


class Ended(NamedTuple):
    """A cell that is done or failed, and the most memory that the run can have had so far."""

    cell: CellKey
    done: bool
    peak_memory_mib: float


@dataclass(frozen=True)
class Task:
    """What a worker is given to do, and how many of the machine's equal parts it takes."""

    verb: Literal["share", "base", "reward", "cell", "check", "finish"]
    seed: int
    method: str = ""
    parts: int = 1
    takes_reward: bool = False  # a cell whose method begins with the shared reward model

    @property
    def name(self) -> str:
        """Name it for people."""
        what = {"share": "shared", "base": "base answers", "reward": "reward model", "cell": self.method,
                "check": "checks", "finish": "results"}  # fmt: skip
        return f"{what[self.verb]}/{self.seed}"


class SideBySide:
    """Runs cells in workers. What the cells of a seed share is made before them, with all that other seeds leave.

    Seconds charged to a cell are those of its part of the machine.

    Args:
        folder: The run folder; workers build the plan again from the suite in it.
        methods: The registered names of the plan.
        seeds: Its seeds.
        files: Loose method files.
        jobs: The number of workers.
        most_threads: CPU threads that each uses at most; 0 for no limit.
        rewarded: Methods that begin with the reward model shared by a seed; None: nothing takes it.
    """

    def __init__(
        self,
        folder: RunFolder,
        methods: Sequence[str],
        seeds: Sequence[int],
        files: Sequence[str | Path],
        jobs: int,
        most_threads: int = 0,
        rewarded: Collection[str] | None = None,
    ) -> None:
        self.folder, self.jobs, self.most_threads, self.rewarded = folder, jobs, most_threads, rewarded
        self.display = WorkerDisplay(jobs)
        plan = {
            "folder": str(folder.path.resolve()),
            "methods": list(methods),
            "seeds": list(seeds),
            "method_files": [str(Path(file).resolve()) for file in files],
        }
        self._workers = [
            WorkerProcess({**plan, "notes_provenance": i == 0}, environment(i, jobs, most_threads), self.display.say)
            for i in range(jobs)
        ]
        self._running: dict[Future[dict[str, Any]], tuple[Task, int]] = {}

    def run(self, todo: Sequence[CellKey]) -> Generator[Ended, None, None]:
        """Yield the cells as they end, then finish the run.

        Raises:
            BadInput: A worker met a wrong input.
            RunFailed: Shared work failed, or a disk is full. Cells under way are left as by a kill.
        """
        waiting = tasks(todo, self.jobs, self.most_threads, self.rewarded)
        with self.display.shown(len(todo)), self._pool() as pool:
            for worker in self._workers:
                worker.start()  # all of them now: they import while the first makes what is shared
            while waiting or self._running:
                for task in startable(waiting, [task for task, _ in self._running.values()], self.jobs):
                    waiting.remove(task)
                    self._start(task, pool)
                yield from self._ended()
            self._start(Task("finish", todo[0][1], parts=self.jobs), pool)
            yield from self._ended()

    @contextmanager
    def _pool(self) -> Iterator[ThreadPoolExecutor]:
        """Yield a thread a worker, to wait for its replies; no worker outlives the block."""
        with ThreadPoolExecutor(self.jobs) as pool:
            try:
                yield pool
            finally:
                for worker in self._workers:
                    worker.close()
                for worker in self._workers:
                    worker.wait()

    def _start(self, task: Task, pool: ThreadPoolExecutor) -> None:
        busy = {number for _, number in self._running.values()}
        free = [number for number in range(self.jobs) if number not in busy]
        number = min(free, key=lambda number: not self._workers[number].alive)
        worker = self._workers[number]
        worker.start()
        self.display.starts(number, task.name)
        message = {"verb": task.verb, "seed": task.seed, "method": task.method,
                   "threads": threads(task.parts, self.jobs, self.most_threads)}  # fmt: skip
        self._running[pool.submit(worker.do, message)] = task, number

    def _ended(self) -> Iterator[Ended]:
        """Wait until a task has ended; yield it if it is a cell."""
        for future in wait(self._running, return_when=FIRST_COMPLETED).done:
            task, number = self._running.pop(future)
            self.display.ends(number, task.verb == "cell")
            done = self._done(task, future)
            if task.verb == "cell":
                peak = lifetime_peak_mib() + sum(worker.peak_memory_mib for worker in self._workers)
                yield Ended((task.method, task.seed), done, peak)

    def _done(self, task: Task, future: Future[dict[str, Any]]) -> bool:
        try:
            reply = future.result()
        except WorkerDied as death:
            if task.verb != "cell":
                raise RunFailed(
                    f"{task.name}: {death}; run the same command again (what was computed is kept)"
                ) from None
            self.folder.fail_cell(task.method, task.seed, str(death))
            return False
        if "error" in reply:
            raise (BadInput if reply["exit_status"] == BadInput.exit_status else RunFailed)(reply["error"])
        return bool(reply.get("done", True))


def tasks(
    todo: Sequence[CellKey], jobs: int, most_threads: int = 0, rewarded: Collection[str] | None = None
) -> list[Task]:
    """Return the tasks of some cells in the order to start them.

    Shared work comes first, its seeds dividing the machine between them unless threads are limited, and beside it what
    the base model answers; then the reward model, beside which methods that do without may begin. Of the cells the
    longest come first: methods that sample as they train, then those that train, then baselines, those that take a
    reward model before the others. What scorers are checked by needs no cell and fills what the last one leaves.
    """
    seeds = list(dict.fromkeys(seed for _, seed in todo))
    parts = 1 if most_threads else jobs // min(jobs, len(seeds))
    rank = {"offline": 1, "baseline": 2}
    cells = sorted(todo, key=lambda cell: (rank.get(registry.find(cell[0]).family, 0), cell[0] not in (rewarded or ())))
    return [
        *(Task("share", seed, parts=parts) for seed in seeds),
        *(Task("base", seed) for name, seed in todo if name == _BASE),
        *(Task("reward", seed, parts=parts) for seed in seeds if rewarded is not None),
        *(Task("cell", seed, name, takes_reward=name in (rewarded or ())) for name, seed in cells),
        Task("check", seeds[0]),
    ]


def startable(waiting: Sequence[Task], running: Sequence[Task], jobs: int) -> list[Task]:
    """Return the tasks that may start now: their parts are free, and what they begin with is made."""
    free = jobs - sum(task.parts for task in running)
    unmade = {(task.verb, task.seed) for task in (*waiting, *running)}
    found = []
    for task in waiting:
        begun_with = _BEGINS_WITH.get(task.verb, ("share", "reward")[: 1 + task.takes_reward])
        if task.parts <= free and not any((verb, task.seed) in unmade for verb in begun_with):
            found.append(task)
            free -= task.parts
    return found
