"""Scoring the stored completions of a run again, or with more evaluators. Nothing is sampled or trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from datasets import Dataset

from alignarena.benchmarks.against_sft import feedback, no_completions
from alignarena.benchmarks.cell import Bench, aligned
from alignarena.benchmarks.exact.laboratory import Measured
from alignarena.benchmarks.measured import write_measured
from alignarena.benchmarks.provenance import evaluator_cards
from alignarena.benchmarks.suite import load_suite
from alignarena.benchmarks.sweep import Sweep
from alignarena.core import registry
from alignarena.core.contract import Judge, Lab, Policy, Rows, Scorer, TrainablePolicy
from alignarena.core.errors import Unusable
from alignarena.evaluators.registry import evaluate
from alignarena.evaluators.registry import find as find_evaluator
from alignarena.harness.cache import Cache
from alignarena.results.cells import Cell
from alignarena.results.store import RunFolder


class _ForScoring(Cache):
    """The cache of stages, which takes scores and log-probs but lets nothing be sampled or trained anew."""

    def put(self, key: str, record: dict[str, Any], write: Callable[[Path], None]) -> None:
        """Add a stage that is cheap and changes no policy.

        Raises:
            Unusable: The stage would sample or train.
        """
        if record["verb"] not in ("score", "prefer", "logps", "embed"):
            raise Unusable(
                f"the cache {self.root} no longer holds the stage {record['stage']!r} of this run, and scoring never "
                "samples or trains; run the suite again, or name evaluators that read completions alone (behaviour)"
            )
        super().put(key, record, write)


def score(run_dir: str | Path, evaluators: Sequence[str] | None = None) -> None:
    """Score the stored completions of every finished cell; scores of other evaluators stay as they are.

    Args:
        run_dir: A run folder.
        evaluators: Names; the suite's by default.

    Raises:
        BadInput: Not a run folder or one without completions, an unknown evaluator, or one that needs what the cache
            no longer holds.
    """
    folder = RunFolder.open(run_dir)
    for file in folder.provenance.get("method_files", ()):
        registry.load_file(file)
    plan = load_suite(str(folder.path / "suite.resolved.yaml"))
    names = tuple(evaluators or plan.evaluators)
    for name in names:
        find_evaluator(name)
    sweep = Sweep(plan, folder, cache=_ForScoring(), notes_provenance=False)
    cells = [folder.read_cell(*cell) for cell in folder.cells() if folder.state(*cell) == "DONE"]
    if not all(cell.completions for cell in cells):
        raise no_completions(folder)
    fresh = [evaluate(names, _StoredEvidence(sweep, cell, cells)) for cell in cells]  # all, before any file is replaced
    for cell, scores in zip(cells, fresh, strict=True):
        kept = [row for row in cell.scores if row["evaluator"] not in names]
        folder.write_cell(cell.method, cell.seed, scores=[*kept, *scores])
    known = folder.provenance
    cards = {**known.get("evaluators", {}), **evaluator_cards(plan, names)}
    folder.write_json("provenance.json", {**known, "evaluators": cards})
    write_measured(folder)
    folder.write_results_parquet()


def stored_bench(folder: RunFolder, seed: int) -> Bench:
    """Return the bench of a run's seed, which samples and trains nothing: its stages are in the cache.

    Raises:
        BadInput: A stage is there no longer, when it is asked for.
    """
    for file in folder.provenance.get("method_files", ()):
        registry.load_file(file)
    plan = load_suite(str(folder.path / "suite.resolved.yaml"))
    return Sweep(plan, folder, cache=_ForScoring(), notes_provenance=False).seed(seed)[1]


class _StoredEvidence:
    """A cell's stored completions. The model is loaded, and stages are read back, only for evaluators that ask."""

    def __init__(self, sweep: Sweep, cell: Cell, cells: Sequence[Cell]) -> None:
        self._sweep, self._cell, self._cells = sweep, cell, cells
        self.rows = Dataset.from_list(cell.completions)

    @property
    def _bench(self) -> Bench:
        return self._sweep.seed(self._cell.seed)[1]

    @cached_property
    def policy(self) -> Policy:
        """The method's policy: aligned again, every stage from the cache."""
        return aligned(*self._sweep.seed(self._cell.seed), self._sweep.methods[self._cell.method])[0]

    @property
    def lineage(self) -> frozenset[str]:
        """The root scorers and writers of what the policy was trained on."""
        return feedback(self._sweep.folder, self._cell)

    @property
    def heldout_reward(self) -> Scorer:
        """As the bench's."""
        return self._bench.heldout_reward

    @property
    def labeler(self) -> Judge | Scorer:
        """As the bench's."""
        return self._bench.labeler

    @cached_property
    def baseline(self) -> Rows:
        """The stored completions of the SFT cell; from the cache where this run has none."""
        for other in self._cells:
            if (other.method, other.seed) == ("sft", self._cell.seed):
                return Dataset.from_list(other.completions)
        return self._bench.baseline

    @property
    def exact(self) -> Iterable[Measured]:
        """As the bench computes them."""
        return self._bench.exact(self.policy, self._sweep.methods[self._cell.method])

    @property
    def lab(self) -> Lab:
        """As the bench's."""
        return self._bench.lab

    @property
    def reference(self) -> TrainablePolicy:
        """The SFT policy."""
        return self._bench.sft

    @property
    def proxy(self) -> Scorer:
        """As the bench's."""
        return self._bench.proxy

    @property
    def judge(self) -> Scorer:
        """As the bench's."""
        return self._bench.judge

    @property
    def heldout(self) -> Mapping[str, Rows]:
        """As the bench's."""
        return self._bench.heldout
