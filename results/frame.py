"""Results of one or more run folders: the tidy frame, the leaderboard, and paired comparisons."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pandas as pd

from alignarena.core.digest import digest
from alignarena.core.errors import BadInput, nearest
from alignarena.core.records import Ledger
from alignarena.results import leaderboard, stats
from alignarena.results.cells import Cell, tidy
from alignarena.results.comparison import Comparison
from alignarena.results.convergence import Rise
from alignarena.results.folders import BASELINE, STUDY, run_folders
from alignarena.results.stats import Difference, Interval, Sample
from alignarena.results.store import RunFolder

__all__ = ["BASELINE", "STUDY", "Entry", "Results", "Status", "load_results", "run_folders"]

Status = Literal["DONE", "FAILED", "not converged", "RUNNING", "WAITING"]


@dataclass(frozen=True)
class Entry:
    """One row of the leaderboard: a method of one suite, with all its seeds."""

    label: str  # the method's name; behind its run's name where runs of several suites are read together
    method: str
    baseline: str  # label of the sft row that it is compared with
    folder: RunFolder  # the first folder that holds it
    cells: dict[int, Cell]  # by seed

    @property
    def finished(self) -> list[Cell]:
        """The cells that are DONE."""
        return [cell for cell in self.cells.values() if cell.state == "DONE"]

    @property
    def is_baseline(self) -> bool:
        """Whether this is the row that the others are compared with."""
        return self.label == self.baseline

    @property
    def status(self) -> Status:
        """FAILED where any seed failed: those that survived are no fair sample of the method."""
        if any(cell.config != self.finished[0].config for cell in self.finished):
            return "WAITING"  # a run with other settings was ended before it came to all seeds
        states = {cell.state for cell in self.cells.values()}
        unfinished: tuple[Status, ...] = ("FAILED", "RUNNING", "WAITING")
        for state in unfinished:
            if state in states:
                return state
        return "DONE" if all(cell.converged for cell in self.finished) else "not converged"

    @property
    def rise(self) -> Rise | None:
        """How the training reward ended, of the seed where it rose most surely; None where no curve can tell."""
        return min((cell.rise for cell in self.finished if cell.rise), key=lambda one: one.p_value, default=None)

    @property
    def informed(self) -> bool:
        """Whether the method is told in words what is wanted, as its card in provenance.json says."""
        return bool((self.folder.provenance.get("methods") or {}).get(self.method, {}).get("informed"))

    def charged(self) -> Ledger:
        """Return what one run was charged: the mean over finished seeds, the largest peak memory."""
        total = sum((cell.charged for cell in self.finished), Ledger())
        mean = {name: value / max(1, len(self.finished)) for name, value in total.to_dict().items()}
        return Ledger.from_dict({**mean, "peak_memory_mib": total.peak_memory_mib})


class Results:
    """What one or more runs found.

    Folders of one suite (by digest) are read as one run; folders of different suites, or of different variants of a
    study, keep their own baseline, and their methods are labelled ``FOLDER/METHOD``.

    Args:
        folders: Run folders, complete or not.
        given: The folders that were asked for, where some are those of studies.
    """

    def __init__(self, folders: Sequence[RunFolder], given: Sequence[str | Path] = ()) -> None:
        self.folders = list(folders)
        self.given = [Path(path) for path in given] or [folder.path for folder in self.folders]
        self.entries: dict[str, Entry] = {entry.label: entry for entry in _entries(self.folders)}

    @classmethod
    def load(cls, *run_dirs: str | Path) -> Self:
        """Read run folders; arguments and errors as those of :func:`load_results`."""
        if not run_dirs:
            raise BadInput("no run folder given; name one that `alignarena run` wrote (runs/NAME)")
        return cls([folder for path in run_dirs for folder in run_folders(path)], run_dirs)

    @property
    def methods(self) -> list[str]:
        """The labels of all methods, in the suite's order."""
        return list(self.entries)

    @cached_property
    def metrics(self) -> list[str]:
        """The metrics that were scored."""
        return sorted(self.frame["metric"].unique())

    @cached_property
    def frame(self) -> pd.DataFrame:
        """Tidy scores of all finished cells: suite method seed prompt_id sample evaluator metric value cluster."""
        parts = []
        for entry in self.entries.values():
            suite = str(entry.folder.suite.get("name", entry.folder.name))
            parts.append(tidy(suite, entry.finished).assign(method=entry.label))
        scored = [part for part in parts if len(part)]
        return pd.concat(scored, ignore_index=True) if scored else tidy("", [])

    def leaderboard(self) -> pd.DataFrame:
        """Return one row a method, with the columns of :data:`alignarena.results.leaderboard.COLUMNS` and of judges."""
        return self._leaderboard.copy()

    @cached_property
    def _leaderboard(self) -> pd.DataFrame:
        return leaderboard.build(self)

    def entry(self, label: str) -> Entry:
        """Return a method by its label.

        Raises:
            BadInput: No such method in these runs.
        """
        if label not in self.entries:
            raise BadInput(f"no method {label!r} in {self._where}{nearest(label, self.entries)}")
        return self.entries[label]

    def by_suite(self) -> dict[str, list[Entry]]:
        """Return the methods that are compared with one another, by the label of their SFT row."""
        suites: dict[str, list[Entry]] = {}
        for entry in self.entries.values():
            suites.setdefault(entry.baseline, []).append(entry)
        return suites

    def primary_metric(self, label: str) -> str | None:
        """Return what verdicts on a method rest on: gold where its suite has it, else the win rate against SFT."""
        baseline = self.entry(label).baseline
        suite = [entry.label for entry in self.entries.values() if entry.baseline == baseline]
        return next((metric for metric in ("gold", "win") if any(self._by_seed(one, metric) for one in suite)), None)

    def samples(self, label: str, metric: str) -> list[Sample]:
        """Return values and clusters of a metric, one pair a finished seed that has it."""
        seeds = self._by_seed(label, metric).values()
        return [(rows["value"].to_numpy(), rows["cluster"].to_numpy()) for rows in seeds]

    def interval(self, label: str, metric: str) -> Interval:
        """Return a method's mean of a metric and its interval; NaN where it was not scored."""
        known = self._known_intervals
        if (label, metric) not in known:
            known[label, metric] = stats.mean_interval(self.samples(label, metric))
        return known[label, metric]

    def compare(self, a: str, b: str, metric: str = "gold") -> Comparison:
        """Compare two methods on the completions of the same prompts.

        Differences are taken for each (prompt, sample), averaged for each prompt, and clustered (one seed) or averaged
        for each seed (several).

        Args:
            a: A method's label.
            b: Another's.
            metric: Any scored metric; larger counts as better.

        Raises:
            BadInput: An unknown method or metric, or nothing in common to compare.
        """
        entries = self.entry(a), self.entry(b)
        if metric not in self.metrics:
            raise BadInput(f"no metric {metric!r} in {self._where}{nearest(metric, self.metrics)}")
        differences = self.differences(a, b, metric)
        if not differences:
            raise BadInput(
                f"{a} and {b} have no finished seed with {metric!r} on the same prompts in {self._where}; finish the "
                "run or choose another metric"
            )
        known = self._known_differences
        if (a, b, metric) not in known:
            known[a, b, metric] = stats.paired_difference(differences)
        found = known[a, b, metric]
        withheld = ", ".join(f"{one.label} {one.status}" for one in entries if one.status != "DONE")
        prompts = sum(len(values) for values, _ in differences)
        return Comparison(a, b, metric, **vars(found), prompts=prompts, withheld=withheld)

    def comparable(self, a: str, b: str, metric: str) -> bool:
        """Whether two methods have a finished seed with the metric on the same prompts."""
        return bool(self._pairs(a, b, metric))

    def differences(self, a: str, b: str, metric: str) -> list[Sample]:
        """Return the paired differences a - b and the clusters of their prompts, one pair a seed that both have."""
        return [(pair["value"].to_numpy(), pair["cluster"].to_numpy()) for pair in self._pairs(a, b, metric)]

    def _pairs(self, a: str, b: str, metric: str) -> list[pd.DataFrame]:
        """Per-prompt differences, one frame a seed that both have."""
        known = self._known_pairs
        if (a, b, metric) not in known:
            known[a, b, metric] = self._paired(a, b, metric)
        return known[a, b, metric]

    def _paired(self, a: str, b: str, metric: str) -> list[pd.DataFrame]:
        left, right = self._by_seed(a, metric), self._by_seed(b, metric)
        if metric == "win" and self.entry(b).is_baseline and not right:  # against itself it ties by definition
            right = {seed: rows.assign(value=0.5) for seed, rows in left.items()}
        pairs = [paired_by_prompt(left[seed], right[seed]) for seed in sorted(left.keys() & right.keys())]
        return [pair for pair in pairs if len(pair)]

    @cached_property
    def _known_intervals(self) -> dict[tuple[str, str], Interval]:
        return {}

    @cached_property
    def _known_differences(self) -> dict[tuple[str, str, str], Difference]:
        return {}

    @cached_property
    def _known_pairs(self) -> dict[tuple[str, str, str], list[pd.DataFrame]]:
        return {}

    def _by_seed(self, label: str, metric: str) -> dict[int, pd.DataFrame]:
        return self._groups.get((label, metric), {})

    @cached_property
    def _groups(self) -> dict[tuple[str, str], dict[int, pd.DataFrame]]:
        groups: dict[tuple[str, str], dict[int, pd.DataFrame]] = {}
        known = self.frame[self.frame["value"].notna()].sort_values(["prompt_id", "sample"], kind="stable")
        for key, rows in known.groupby(["method", "metric", "seed"], sort=True):
            label, metric, seed = key
            groups.setdefault((str(label), str(metric)), {})[int(str(seed))] = rows
        return groups

    @property
    def _where(self) -> str:
        return ", ".join(folder.name for folder in self.folders)


def load_results(*run_dirs: str | Path) -> Results:
    """Read one or more run folders, complete or not; a study's folder stands for those of its variants.

    Raises:
        BadInput: A folder is no run folder, or none was given.
    """
    return Results.load(*run_dirs)


def paired_by_prompt(left: pd.DataFrame, right: pd.DataFrame) -> pd.DataFrame:
    """Return the mean difference of two methods' scores for each prompt, with the prompt's cluster."""
    keys = ["prompt_id", "sample"]
    if len(left) == len(right) and all(np.array_equal(left[key], right[key]) for key in keys):  # most often, and fast
        paired = left.assign(value=left["value"].to_numpy() - right["value"].to_numpy())
    else:
        paired = left.merge(right, on=keys, suffixes=("", "_other"))
        paired["value"] = paired["value"] - paired["value_other"]
    if paired["prompt_id"].is_unique:
        return paired.set_index("prompt_id").sort_index()[["value", "cluster"]]
    return paired.groupby("prompt_id", sort=True).agg(value=("value", "mean"), cluster=("cluster", "first"))


def _entries(folders: Sequence[RunFolder]) -> Iterable[Entry]:
    groups, baselines = _mergeable(folders), dict[tuple[str, str], str]()
    for name, group in zip(_unique([group[0].name for group in groups]), groups, strict=True):
        prefix = f"{name}/" if len(groups) > 1 else ""
        methods = _merged(group)
        own, suite = prefix + BASELINE, (_suite_digest(group[0]), _variant(group[0].suite))
        # methods of other settings alone are compared with the SFT policy of the suite, which another run has
        baseline = baselines.setdefault(suite, own) if BASELINE not in methods else own
        baselines.setdefault(suite, own)
        for method, cells in methods.items():
            holder = next(folder for folder in group if any(method == one for one, _ in folder.cells()))
            yield Entry(prefix + method, method, baseline, holder, dict(sorted(cells.items())))


def _mergeable(folders: Sequence[RunFolder]) -> list[list[RunFolder]]:
    """Group folders that are parts of one comparison: of one suite, and of equal settings where they share a method."""
    suites = {folder.path: folder.suite for folder in folders}
    groups: list[list[RunFolder]] = []

    def alike(one: RunFolder, other: RunFolder) -> bool:
        ours, theirs = suites[one.path], suites[other.path]
        settings, others = ours.get("methods") or {}, theirs.get("methods") or {}
        same = all((settings[method] or {}) == (others[method] or {}) for method in settings.keys() & others.keys())
        return same and _variant(ours) == _variant(theirs) and _suite_digest(one) == _suite_digest(other)

    for folder in folders:
        group = next((group for group in groups if all(alike(folder, other) for other in group)), None)
        if group is None:
            groups.append([folder])
        else:
            group.append(folder)
    return groups


def _merged(folders: Sequence[RunFolder]) -> dict[str, dict[int, Cell]]:
    """Cells by method and seed; of a cell that several folders hold, the one that got furthest."""
    furthest = ["DONE", "FAILED", "RUNNING", "WAITING"]
    methods: dict[str, dict[int, Cell]] = {}
    for folder in folders:
        for method, seed in folder.cells():
            cells, cell = methods.setdefault(method, {}), folder.read_cell(method, seed)
            if seed not in cells or furthest.index(cell.state) < furthest.index(cells[seed].state):
                cells[seed] = cell
    return methods


def _variant(suite: Mapping[str, Any]) -> str:
    return str(suite.get("name", "")).partition("/")[2]


def _suite_digest(folder: RunFolder) -> str:
    known = folder.status.get("suite_digest") or folder.provenance.get("suite_digest")
    return str(known) if known else digest(folder.suite)


def _unique(names: Sequence[str]) -> list[str]:
    return [name if names.count(name) == 1 else f"{name}-{i}" for i, name in enumerate(names, start=1)]
