"""The sweep: methods x seeds of one suite into one run folder, then results and the report."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alignarena.benchmarks.cell import Bench, cell_digest, run_cell
from alignarena.benchmarks.datasets import load_dataset_splits
from alignarena.benchmarks.heldout import reward_model_table
from alignarena.benchmarks.start import Start
from alignarena.benchmarks.suite import Suite, build_method, load_suite, resolved, suite_digest
from alignarena.core import registry
from alignarena.core.contract import Method
from alignarena.core.errors import BadInput, RunFailed
from alignarena.core.files import read_json
from alignarena.evaluators.registry import find as find_evaluator
from alignarena.harness.backbone import Backbone
from alignarena.harness.cache import Cache
from alignarena.harness.meter import lifetime_peak_mib
from alignarena.harness.progress import StageProgress
from alignarena.results.frame import Results, load_results
from alignarena.results.store import RunFolder

_PACKAGES = ("alignarena", "torch", "transformers", "peft", "accelerate", "datasets", "numpy", "scipy", "vaderSentiment")


def run(
    suite: str,
    out: str | Path | None = None,
    methods: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    set: Mapping[str, Any] | None = None,  # noqa: A002
    method_files: Sequence[str | Path] = (),
    dry_run: bool = False,
) -> Results | None:
    """Run a suite into a folder, or go on with what a folder lacks, and write its report.

    Args:
        suite: A built-in name or the path of a YAML file.
        out: The run folder; ``runs/NAME`` by default.
        methods: Registered names; the suite's by default.
        seeds: Training seeds; the suite's by default.
        set: Dotted keys to values, as ``--set`` gives them.
        method_files: Loose files whose methods are registered first.

    Raises:
        BadInput: The suite, a method or the folder does not fit.
        RunFailed: A cell failed; the others are finished and the report is written.
    """
    for file in method_files:
        registry.load_file(file)
    plan = load_suite(suite, set)
    plan = _narrowed(plan, methods, seeds)
    folder = RunFolder(Path(out) if out else Path("runs") / plan.name)
    sweep = Sweep(plan, folder)
    failed = sweep.run()
    results = load_results(str(folder.path))
    if failed:
        raise RunFailed(f"{', '.join(failed)} failed; see the FAILED file in {folder.path}/{failed[0]} and run again")
    return results


def score(run_dir: str | Path, evaluators: Sequence[str] | None = None) -> Results:
    """Score the stored completions of a run again, or with more evaluators; never generates for a cell.

    Raises:
        BadInput: Not a run folder, or an unknown evaluator.
    """
    folder = RunFolder.open(run_dir)
    plan = load_suite(str(folder.path / "suite.resolved.yaml"))
    names = tuple(evaluators or plan.evaluators)
    for name in names:
        find_evaluator(name)
    Sweep(plan, folder).score(names)
    return load_results(str(folder.path))


def _narrowed(plan: Suite, methods: Sequence[str] | None, seeds: Sequence[int] | None) -> Suite:
    if methods:
        for name in methods:
            registry.find(name)
        plan = replace(plan, methods={name: plan.methods.get(name, {}) for name in methods})
    return replace(plan, seeds=tuple(seeds)) if seeds else plan


class Sweep:
    """A plan and its folder. The model is loaded when a cell first needs it: a finished run needs none."""

    def __init__(self, plan: Suite, folder: RunFolder) -> None:
        self.plan, self.folder = plan, folder
        self.progress = StageProgress()
        self.methods = {name: shared_settings(build_method(name, fields), fields, plan)
                        for name, fields in plan.methods.items()}  # fmt: skip
        for name in plan.evaluators:
            find_evaluator(name)
        self._backbone: Backbone | None = None
        self._benches: dict[int, Bench] = {}

    def run(self) -> list[str]:
        """Run every cell that is not done; return those that failed."""
        self._claim_folder()
        todo = [(name, seed) for seed in self.plan.seeds for name in self.methods if not self._done(name, seed)]
        before, started = float(self.folder.status.get("machine_seconds", 0.0)), time.perf_counter()
        failed = [f"{name}/{seed}" for name, seed in todo if not self._attempt(name, seed, before, started)]
        if todo and self._is_main:
            self._finish(todo)
        return failed

    def _finish(self, todo: Sequence[tuple[str, int]]) -> None:
        from alignarena.reports.page import write_report

        bench = next(iter(self._benches.values()))
        if bench.start.splits.heldout:
            self.folder.write_json("extra/reward_models.json", reward_model_table(bench))
        self.folder.write_json("provenance.json", {**self.folder.provenance, "finished": _now()})
        self.folder.write_results_parquet()
        write_report([self.folder.path])

    @property
    def _is_main(self) -> bool:
        return self._backbone is None or self._backbone.accelerator.is_main_process

    def score(self, names: Iterable[str]) -> None:
        """Score stored completions of every finished cell."""
        from datasets import Dataset

        from alignarena.reports.page import write_report

        for name, seed in self.folder.cells():
            cell = self.folder.read_cell(name, seed)
            if cell.state != "DONE":
                continue
            bench = self._bench(seed)
            lab = bench.start.cell_lab(bench.sft, bench.sft_cost)
            policy = self.methods[name].align(bench.start.task(bench.sft, lab), lab)
            kept = [row for row in cell.scores if row["evaluator"] not in set(names)]
            fresh = bench.scores(policy, Dataset.from_list(cell.completions), names)
            self.folder.write_cell(name, seed, scores=[*kept, *fresh])
        self.folder.write_results_parquet()
        write_report([self.folder.path])

    def _attempt(self, name: str, seed: int, before: float, started: float) -> bool:
        self.folder.mark(name, seed, "RUNNING")
        try:
            run_cell(self._bench(seed), name, self.methods[name], self.folder)
        except (KeyboardInterrupt, OSError, BadInput):
            raise  # not the method's fault: a full disk, a wrong input
        except Exception as error:  # one method's failure is a row of the table, not the end of the others
            self.folder.fail_cell(name, seed, f"{type(error).__name__}: {error}", traceback.format_exc())
            return False
        finally:
            if self._is_main:
                seconds = before + time.perf_counter() - started
                peak = max(lifetime_peak_mib(), float(self.folder.status.get("machine_peak_memory_mib", 0.0)))
                self.folder.update_status(machine_seconds=seconds, machine_peak_memory_mib=peak)
        return True

    def _bench(self, seed: int) -> Bench:
        if self._backbone is None:
            self._backbone = Backbone(self.plan.model)
            self.progress = StageProgress(silent=not self._is_main)
            self._write_provenance(self._backbone)
        if seed not in self._benches:
            splits = load_dataset_splits(self.plan.data, too_long=self._backbone.tokens.too_long)
            self._benches[seed] = Bench(Start(self.plan, splits, self._backbone, Cache(), seed, self.progress))
        return self._benches[seed]

    def _done(self, name: str, seed: int) -> bool:
        if self.folder.state(name, seed) != "DONE":
            return False
        outcome = read_json(self.folder.cell_path(name, seed) / "DONE", {})
        return bool(outcome.get("digest") == cell_digest(self.plan, seed, self.methods[name]))

    def _claim_folder(self) -> None:
        digest = suite_digest(self.plan)
        known = self.folder.status.get("suite_digest")
        if known not in (None, digest):
            raise BadInput(
                f"{self.folder.path} holds a run of another suite or revision; choose another --out, or remove it"
            )
        merged = resolved(self.plan)
        if known:
            merged["methods"] = {**self.folder.suite.get("methods", {}), **merged["methods"]}
            merged["seeds"] = sorted({*self.folder.suite.get("seeds", ()), *merged["seeds"]})
        self.folder.write_suite(merged)
        self.folder.update_status(suite_digest=digest)

    def _write_provenance(self, backbone: Backbone) -> None:
        if not self._is_main:
            return
        cards = {name: _card(name, method) for name, method in self.methods.items()}
        self.folder.write_json(
            "provenance.json",
            {
                "versions": {name: _version(name) for name in _PACKAGES} | {"python": platform.python_version()},
                "alignarena": _version("alignarena"),
                "suite_digest": suite_digest(self.plan),
                "device": f"{backbone.accelerator.device} x {backbone.accelerator.num_processes}",
                "machine": f"{platform.machine()}, {platform.system()}",
                "precision": f"{backbone.precision}: {backbone.precision_reason}",
                "model": {"name": self.plan.model.model_name_or_path, "digest": backbone.digest,
                          "parameters": backbone.parameters, "shares_prompts": backbone.shares_prompts},
                "seeds": list(self.plan.seeds),
                "command": " ".join(["alignarena", *sys.argv[1:]]),
                "started": _now(),
                "methods": {**self.folder.provenance.get("methods", {}), **cards},
            },  # fmt: skip
        )


def shared_settings(method: Method, given: Mapping[str, Any], plan: Suite) -> Method:
    """Give a method the suite's reward model, unless it was configured with one of its own."""
    if hasattr(method, "reward_model") and "reward_model" not in given:
        return replace(method, reward_model=plan.reward_model)  # type: ignore[type-var]
    return method


def _card(name: str, method: Method) -> dict[str, Any]:
    entry = registry.find(name)
    documentation = sys.modules[entry.module].__doc__ or ""
    card = {
        "paper": entry.paper,
        "family": entry.family,
        "summary": entry.summary,
        "differs": " ".join(documentation.partition("Differs from the paper:")[2].split()),
        "hyperparameters": asdict(method),  # type: ignore[call-overload]
    }
    return card | ({"kl": "analytic upper bound"} if name == "best_of_n" else {})


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
