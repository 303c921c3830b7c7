"""The sweep: methods x seeds of one suite into one run folder, then results and the report."""

from __future__ import annotations

import errno
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list

from alignarena.benchmarks.cell import Bench, cell_digest, run_cell
from alignarena.benchmarks.datasets import files_digest, load_dataset_splits, model_of
from alignarena.benchmarks.heldout import reward_model_table
from alignarena.benchmarks.jobs import chosen_jobs, own_threads, processes, threads
from alignarena.benchmarks.labeler_check import labeler_table
from alignarena.benchmarks.measured import write_measured
from alignarena.benchmarks.provenance import now, provenance
from alignarena.benchmarks.reward_checks import reward_checks
from alignarena.benchmarks.side_by_side import CellKey, Ended, SideBySide
from alignarena.benchmarks.start import Start
from alignarena.benchmarks.suite import Suite, build_method, load_suite, resolved, suite_digest
from alignarena.benchmarks.trackers import check_tracker
from alignarena.core import registry
from alignarena.core.contract import Method
from alignarena.core.digest import digest
from alignarena.core.errors import BadInput, RunFailed
from alignarena.core.files import read_json
from alignarena.evaluators.registry import find as find_evaluator
from alignarena.harness.backbone import Backbone
from alignarena.harness.cache import Cache
from alignarena.harness.meter import lifetime_peak_mib
from alignarena.harness.policy import AdapterPolicy
from alignarena.harness.progress import StageProgress
from alignarena.results.frame import STUDY
from alignarena.results.store import RunFolder

_MEMORY_OF_ONE = "one process"
_MEMORY_OF_SEVERAL = "the sum of the peaks of {} workers and the process that started them: at most this at once"


def run(
    suite: str,
    out: str | Path | None = None,
    methods: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    set: Mapping[str, Any] | None = None,
    method_files: Sequence[str | Path] = (),
    jobs: int | None = None,
) -> tuple[Path, list[str]]:
    """Run a suite into a folder, or go on with what a folder lacks.

    Args:
        suite: A built-in name or the path of a YAML file; of a study, ``STUDY/VARIANT``.
        out: The run folder; ``runs/NAME`` by default.
        methods: Registered names; the suite's by default.
        seeds: Training seeds; the suite's by default.
        set: Dotted keys to values, as ``--set`` gives them.
        method_files: Loose files whose methods are registered first.
        jobs: Cells at a time, each in a worker process; by default one a GPU, or one for 8 cores, or for as many as
            the suite's ``threads``.

    Returns:
        The run folder, and the cells that failed as ``METHOD/SEED``; one failure never ends the others.

    Raises:
        BadInput: The suite, a method or the folder does not fit.
    """
    plan = planned(suite, methods, seeds, set, method_files)
    folder = RunFolder(Path(out) if out else Path("runs") / plan.name)
    jobs = chosen_jobs(jobs, plan.methods, method_files, plan.threads)
    return folder.path, Sweep(plan, folder, method_files).run(jobs)


def planned(
    suite: str,
    methods: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    set: Mapping[str, Any] | None = None,
    method_files: Sequence[str | Path] = (),
) -> Suite:
    """Return a suite as it would run; arguments and errors as those of :func:`run`."""
    for file in method_files:
        registry.load_file(file)
    for name in methods or ():
        registry.find(name)
    plan = load_suite(suite, set, methods)
    return replace(plan, seeds=tuple(seeds)) if seeds else plan


class Sweep:
    """A plan and its folder. The model is loaded when a cell first needs it: a finished run needs none.

    Args:
        plan: The suite as it runs.
        folder: Where the cells go.
        files: Loose method files that were loaded.
        cache: Where stages are kept; the user's by default.
        notes_provenance: Whether this process writes provenance.json; of several workers, one does.
    """

    def __init__(
        self,
        plan: Suite,
        folder: RunFolder,
        files: Sequence[str | Path] = (),
        cache: Cache | None = None,
        notes_provenance: bool = True,
    ) -> None:
        self.plan, self.folder, self.files, self.cache = plan, folder, files, cache or Cache()
        check_tracker(plan.report_to)
        self._is_main = processes().is_main_process  # only the first process writes to the folder
        self._notes_provenance = notes_provenance and self._is_main
        self.progress = StageProgress(silent=not self._is_main)
        if self._is_main:
            self.progress.note = lambda stage: folder.note_progress(self.progress.cell, stage)
        self.methods = {
            name: shared_settings(build_method(name, given), given, plan) for name, given in plan.methods.items()
        }
        digest(*self.methods.values())  # reads their sources as they were loaded, whatever they are edited to meanwhile
        for name in plan.evaluators:
            find_evaluator(name)
        self._backbone: Backbone | None = None
        self._seeds: dict[int, tuple[Start, Bench]] = {}

    def run(self, jobs: int = 1) -> list[str]:
        """Run every cell that is not done, ``jobs`` at a time; return those that failed."""
        self._claim_together()
        todo = [(name, seed) for seed in self.plan.seeds for name in self.methods if not self._done(name, seed)]
        before, started = float(self.folder.status.get("machine_seconds", 0.0)), time.perf_counter()
        jobs = min(jobs, len(todo))
        ended = dict[CellKey, bool]()
        with own_threads(), closing(self._side_by_side(todo, jobs) if jobs > 1 else self._in_turn(todo)) as ends:
            for cell, done, peak in ends:
                ended[cell] = done
                self._note_machine(before + time.perf_counter() - started, peak, jobs)
        return [f"{name}/{seed}" for name, seed in todo if not ended[name, seed]]

    def _in_turn(self, todo: Sequence[CellKey]) -> Generator[Ended, None, None]:
        for name, seed in todo:
            yield Ended((name, seed), self.attempt(name, seed), lifetime_peak_mib())
        if todo:
            self.finish(todo[0][1])

    def _side_by_side(self, todo: Sequence[CellKey], jobs: int) -> Generator[Ended, None, None]:
        plan = self.plan
        settings = {name: getattr(method, "reward_model", None) for name, method in self.methods.items()}
        rewarded = {name for name, one in settings.items() if one == plan.reward_model}
        wanted = rewarded or "proxy" in plan.evaluators
        return SideBySide(
            self.folder, list(self.methods), plan.seeds, self.files, jobs, plan.threads, rewarded if wanted else None
        ).run(todo)

    def seed(self, seed: int) -> tuple[Start, Bench]:
        """Return what the cells of a seed share; loads the model and the data when first asked."""
        if self._backbone is None:
            self._backbone = Backbone(model_of(self.plan.data, self.plan.model))
            if self.plan.threads:
                torch.set_num_threads(threads(1, 1, self.plan.threads))
            if self._notes_provenance:
                noted = provenance(self.plan, self.methods, self._backbone, self.files, self.folder.provenance,
                                   self.folder.path)  # fmt: skip
                self.folder.write_json("provenance.json", noted)
        if seed not in self._seeds:
            splits = load_dataset_splits(self.plan.data, too_long=self._backbone.tokens.too_long)
            base = AdapterPolicy(self._backbone.digest)
            start = Start(self.plan, splits, base, self._backbone, self.cache, seed, self.progress)
            self._seeds[seed] = start, Bench(start, start.lab())
        return self._seeds[seed]

    def attempt(self, name: str, seed: int) -> bool:
        """Run a cell; return whether it is done. Whatever the method did wrong is written down as its failure.

        Raises:
            AlignArenaError: What would fail every method alike: shared work, a wrong input, a full disk.
        """
        with self._full_disk_explained():
            ready, done = self._prepared(seed), True
            try:
                if self._is_main:
                    self.folder.begin_cell(name, seed)
                run_cell(*ready, name, self.methods[name], self.folder)
            except Exception as error:
                if _ends_the_run(error) or _may_be_of_one_process(error):
                    raise
                if self._is_main:
                    self.folder.fail_cell(name, seed, f"{type(error).__name__}: {error}", traceback.format_exc())
                done = False
            processes().wait_for_everyone()  # what the first one writes of a cell, all may read
        return done

    def share(self, seed: int) -> None:
        """Make what the cells of a seed have in common: it is then in the cache when several of them look for it.

        That is the SFT policy, its answers and the win rate's judge. What else two cells happen to share the first one
        makes while the other waits at the cache's lock.

        Raises:
            AlignArenaError: As :meth:`attempt`.
        """
        with self._met_again(seed) as bench:
            if "win_rate" in self.plan.evaluators or "sft" in self.methods:
                _ = bench.baseline
            if "win_rate" in self.plan.evaluators:
                _ = bench.judge

    def answer_with_base(self, seed: int) -> None:
        """Draw the answers of the model as given, which need no SFT policy: they are then in the cache.

        Raises:
            AlignArenaError: As :meth:`attempt`.
        """
        with self._full_disk_explained(), _left_to_the_cells():
            start, bench = self.seed(seed)
            self.progress.cell = f"shared/{seed}"
            bench.answers(start.base)

    def share_reward_model(self, seed: int) -> None:
        """Make the reward model of a seed, and the preferences under it.

        Raises:
            AlignArenaError: As :meth:`attempt`.
        """
        with self._met_again(seed) as bench:
            _ = bench.proxy

    @contextmanager
    def _met_again(self, seed: int) -> Iterator[Bench]:
        """Yield what the cells of a seed share; a failure that each of them will meet again is left to them."""
        with self._full_disk_explained():
            _, bench = self._prepared(seed)
            with _left_to_the_cells():
                yield bench

    def _prepared(self, seed: int) -> tuple[Start, Bench]:
        """Make what all methods start from: a failure of it is then not taken for a method's."""
        start, bench = self.seed(seed)
        self.progress.cell = f"shared/{seed}"
        _ = bench.sft
        return start, bench

    @contextmanager
    def _full_disk_explained(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if _disk_is_full(error) and not isinstance(error, RunFailed):
                raise RunFailed(
                    f"no space left for {self.folder.path} or the cache {self.cache.root}; free some, then run the "
                    "same command again (what was computed is kept)"
                ) from error
            raise

    def _note_machine(self, seconds: float, peak_memory_mib: float, jobs: int) -> None:
        if self._is_main:
            status = self.folder.status
            changes: dict[str, Any] = {"machine_seconds": seconds}
            if peak_memory_mib >= float(status.get("machine_peak_memory_mib", 0.0)):
                changes["machine_peak_memory_mib"] = peak_memory_mib
                changes["machine_peak_memory_of"] = _MEMORY_OF_ONE if jobs == 1 else _MEMORY_OF_SEVERAL.format(jobs)
            self.folder.update_status(**changes)

    def check(self, seed: int) -> None:
        """Make what :meth:`finish` will write of scorers, beside the last cells: it is then in the cache.

        Raises:
            AlignArenaError: As :meth:`attempt`.
        """
        with self._met_again(seed) as bench:
            self._extra(bench)

    def finish(self, seed: int) -> None:
        """Write what a run adds to its cells: tables of scorers and labelers, at one seed, and results.parquet."""
        with self._full_disk_explained():
            _, bench = self.seed(seed)
            self.progress.cell = f"shared/{seed}"
            extra = self._extra(bench)  # every process has a share in this
            if self._is_main:
                self._write_end(extra)
            processes().wait_for_everyone()

    def _write_end(self, extra: Mapping[str, Any]) -> None:
        for name, table in extra.items():
            self.folder.write_json(f"extra/{name}.json", table)
        self.folder.write_json("provenance.json", {**self.folder.provenance, "finished": now()})
        write_measured(self.folder)
        self.folder.write_results_parquet()

    def _extra(self, bench: Bench) -> dict[str, Any]:
        """Return the tables of a run beside its cells."""
        evaluators, found = self.plan.evaluators, dict[str, Any]()
        if bench.heldout:
            found["reward_models"] = reward_model_table(bench)
        if self._asked_a_labeler():
            found["labeler"] = labeler_table(bench)
        if "heldout_reward" in evaluators and self.plan.feedback.annotator == "simulated":
            found["reward_checks"] = reward_checks(bench)
        if "exact" in evaluators and bench.laboratory:
            found["frontier"] = bench.laboratory.frontier()
        return found

    def _asked_a_labeler(self) -> bool:
        """Tell whether any cell was charged for calls of the AI labeler."""
        budgets = (read_json(self.folder.cell_path(*cell) / "budget.json", {}) for cell in self.folder.cells())
        return any(budget.get("charged", {}).get("labeler_calls") for budget in budgets)

    def _done(self, name: str, seed: int) -> bool:
        if self.folder.state(name, seed) != "DONE":
            return False
        outcome = read_json(self.folder.cell_path(name, seed) / "DONE", {})
        return bool(outcome.get("digest") == cell_digest(self.plan, seed, self.methods[name]))

    def _claim_together(self) -> None:
        """Claim the folder in the first process; where it is refused, all of them raise."""
        refused = [None] if not self._is_main else [_refusal(self._claim_folder)]
        if processes().num_processes > 1:
            broadcast_object_list(refused)
        if refused[0]:
            raise BadInput(refused[0])

    def _claim_folder(self) -> None:
        if (self.folder.path / STUDY).is_file():
            raise BadInput(f"{self.folder.path} holds a study; choose another --out")
        named = suite_digest(self.plan)
        known = self.folder.status.get("suite_digest")
        if known not in (None, named):
            if any(self.folder.state(*cell) in ("DONE", "FAILED") for cell in self.folder.cells()):
                raise BadInput(
                    f"{self.folder.path} holds a run of another suite or revision; choose another --out, or remove it"
                )
            known = None  # nothing came of it: a wrong path, say, that is now put right
            self.folder.update_status(cells={})
        merged = resolved(self.plan)
        files = files_digest(self.plan.data)
        if known:
            self._refuse_mixtures(files)
            merged["methods"] = {**self.folder.suite.get("methods", {}), **merged["methods"]}
            merged["seeds"] = sorted({*self.folder.suite.get("seeds", ()), *merged["seeds"]})
        self.folder.write_suite(merged)
        kept = self.folder.status.get("data_files") if known else None  # of files that are gone: they may come back
        self.folder.update_status(suite_digest=named, data_files=files or kept)

    def _refuse_mixtures(self, files: str | None) -> None:
        """Refuse a folder whose finished cells would be compared with, or averaged over, what was made otherwise.

        Raises:
            BadInput: The user's data changed since, or another seed of a method has other settings.
        """
        folder, done = self.folder.path, [cell for cell in self.folder.cells() if self.folder.state(*cell) == "DONE"]
        before = self.folder.status.get("data_files")
        if done and before and files and before != files:
            raise BadInput(f"{folder} was made from other rows than the data files hold now; choose another --out")
        for name, seed in done:
            if name in self.methods and seed not in self.plan.seeds and not self._done(name, seed):
                raise BadInput(
                    f"{folder} holds {name}/{seed}, made by other settings, evaluators or code of {name}, which one "
                    "table may not mix; choose another --out, or run all its seeds again with --seeds"
                )


def _refusal(claim: Callable[[], None]) -> str | None:
    try:
        claim()
    except BadInput as error:
        return str(error)
    return None


@contextmanager
def _left_to_the_cells() -> Iterator[None]:
    """Pass over a failure that each cell will meet again, unless it would fail every method alike."""
    try:
        yield
    except Exception as error:
        if _ends_the_run(error):
            raise


def _ends_the_run(error: Exception) -> bool:
    """Tell whether an error is no method's failure: a wrong input or a full disk fails every method alike."""
    return isinstance(error, BadInput) or _disk_is_full(error)


def _may_be_of_one_process(error: Exception) -> bool:
    """Tell whether the other processes of a launch may know nothing of an error, and would wait for this one forever.

    Out of memory is such a one. The launcher ends the others, and the same command goes on from what is done.
    """
    return processes().num_processes > 1 and isinstance(error, RuntimeError | OSError | MemoryError)


def _disk_is_full(error: BaseException | None) -> bool:
    while error is not None:
        # safetensors raises an error of its own that only its text tells apart
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def shared_settings(method: Method, given: Mapping[str, Any], plan: Suite) -> Method:
    """Give a method, and the methods it is made of, the suite's reward model unless they were configured with one."""
    changed: dict[str, Any] = {}
    for name, value in vars(method).items():
        if name == "reward_model" and name not in given:
            changed[name] = plan.reward_model
        elif hasattr(value, "align"):
            changed[name] = shared_settings(value, given.get(name) or {}, plan)
    return replace(method, **changed) if changed else method  # type: ignore[type-var]
