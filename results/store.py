"""A run folder: what a run leaves, written so that a kill loses nothing and read whatever is there."""

from __future__ import annotations

import io
import time
from collections.abc import Iterable, Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from filelock import FileLock

from alignarena.core.errors import BadInput
from alignarena.core.files import append_jsonl, atomic_write, dump_json, read_json, read_jsonl, write_json, write_jsonl
from alignarena.core.lineage import noted
from alignarena.core.records import Ledger
from alignarena.results.cells import SCORE_COLUMNS, Cell, State, tidy

_CURVES = ("frontier.json",)  # in RUN/extra, but no table: alignarena.results.exact reads it


class RunFolder:
    """Reads and writes the files of one run folder; every write is atomic.

    Args:
        path: The folder; it need not exist before the first write.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """Return an existing run folder.

        Raises:
            BadInput: There is no such folder, or no run wrote it.
        """
        folder = cls(path)
        if not folder.path.is_dir():
            raise BadInput(f"{path} is not a folder; give the folder that `alignarena run` wrote (runs/NAME)")
        if not (folder.path / "suite.resolved.yaml").is_file():
            raise BadInput(
                f"{path} is not a run folder: it has no suite.resolved.yaml; give the folder that `alignarena run` "
                "wrote (runs/NAME)"
            )
        return folder

    # What the run is

    @property
    def suite(self) -> dict[str, Any]:
        """The resolved suite; empty where the folder has none yet.

        Raises:
            BadInput: The file is not a YAML mapping.
        """
        path = self.path / "suite.resolved.yaml"
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return {}
        try:
            suite = _parsed(text)
        except yaml.YAMLError as error:
            raise BadInput(f"{path} is not YAML ({' '.join(str(error).split())}); run the suite again") from None
        if not isinstance(suite, dict):
            raise BadInput(f"{path}: expected a mapping, got {type(suite).__name__}; run the suite again")
        return dict(suite)

    @property
    def provenance(self) -> dict[str, Any]:
        """Versions, hashes, device, seeds and method cards."""
        return dict(read_json(self.path / "provenance.json", {}))

    @property
    def status(self) -> dict[str, Any]:
        """The state of each cell and what the machine really spent."""
        return dict(read_json(self.path / "status.json", {}))

    @cached_property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.resolve().name

    def extra(self) -> list[dict[str, Any]]:
        """Tables that a suite adds to its report: ``title, caption, columns, rows``, and ``name`` (the file's stem).

        Raises:
            BadInput: A file lacks its columns or rows.
        """
        tables = []
        for path in sorted((self.path / "extra").glob("*.json")):
            if path.name in _CURVES:
                continue
            table = read_json(path)
            if not isinstance(table, dict) or not {"columns", "rows"} <= table.keys():
                raise BadInput(f"{path}: expected an object with title, caption, columns and rows")
            tables.append({"title": path.stem, "caption": "", **table, "name": path.stem})
        return tables

    def write_suite(self, suite: Mapping[str, Any]) -> None:
        """Write the resolved suite, its methods in order."""
        text = yaml.safe_dump(dict(suite), sort_keys=False, allow_unicode=True)
        atomic_write(self.path / "suite.resolved.yaml", text)

    def write_json(self, name: str, value: Any) -> None:
        """Write one of the folder's JSON files, such as ``provenance.json``."""
        write_json(self.path / name, value)

    def update_status(self, **changes: Any) -> None:
        """Change fields of status.json; of several processes that do so, none undoes what another wrote."""
        with self._only_writer:
            self.write_json("status.json", {**self.status, **changes})

    def begin_cell(self, method: str, seed: int) -> None:
        """Take the marks of an earlier end off a cell that is about to be written anew."""
        for ended in ("DONE", "FAILED"):
            (self.cell_path(method, seed) / ended).unlink(missing_ok=True)
        self.mark(method, seed, "RUNNING")

    def mark(self, method: str, seed: int, state: State) -> None:
        """Set the state of one cell in status.json."""
        with self._only_writer:
            self.update_status(cells={**self.status.get("cells", {}), f"{method}/{seed}": state})

    def note_progress(self, cell: str, stage: Mapping[str, Any]) -> None:
        """Note how far the stage under way of a cell (``METHOD/SEED``, or shared work) is, for who watches."""
        self.write_json(self._progress_name(cell), {**stage, "at": time.time()})

    def progress(self, cell: str) -> dict[str, Any]:
        """Return what was last noted of a cell that is under way: ``stage, done, total, tokens_per_second, at``."""
        return dict(read_json(self.path / self._progress_name(cell), {}))

    def _progress_name(self, cell: str) -> str:
        return f".progress/{cell.replace('/', '-')}.json"

    @cached_property
    def _only_writer(self) -> FileLock:
        return FileLock(self.path / ".status.lock")

    # Cells

    def cell_path(self, method: str, seed: int) -> Path:
        """Return the folder of one cell."""
        return self.path / method / str(seed)

    def cells(self) -> list[tuple[str, int]]:
        """Return (method, seed) of every cell planned or present, in the suite's order, then by name."""
        suite = self.suite
        seeds = suite.get("seeds") or (0,)
        planned = [(str(method), int(seed)) for method in suite.get("methods") or () for seed in seeds]
        named = [_split(key) for key in self.status.get("cells", {})]
        folders = (path for path in self.path.glob("*/*") if path.is_dir() and path.name.isdigit())
        present = [(path.parent.name, int(path.name)) for path in folders]
        order = list(dict.fromkeys(method for method, _ in planned))
        further = sorted({method for method, _ in named + present} - set(order))
        rank = {method: i for i, method in enumerate(order + further)}
        return sorted({*planned, *named, *present}, key=lambda cell: (rank[cell[0]], cell[1]))

    def state(self, method: str, seed: int) -> State:
        """Return how far a cell got: its DONE or FAILED file decides, status.json tells the rest apart."""
        path = self.cell_path(method, seed)
        ends: tuple[State, State] = ("DONE", "FAILED")
        for state in ends:
            if (path / state).is_file():
                return state
        noted = self.status.get("cells", {}).get(f"{method}/{seed}")
        return "RUNNING" if noted == "RUNNING" else "WAITING"

    def read_cell(self, method: str, seed: int) -> Cell:
        """Read one cell; what is not there is empty.

        Raises:
            BadInput: A file is damaged in a way that a kill does not explain.
        """
        path, state = self.cell_path(method, seed), self.state(method, seed)
        budget = read_json(path / "budget.json", {})
        return Cell(
            method=method,
            seed=seed,
            state=state,
            outcome=read_json(path / state, {}),
            config=_read_yaml(path / "config.yaml"),
            completions=self.completions(method, seed),
            scores=read_jsonl(path / "scores.jsonl") or self._trimmed_scores(method, seed),
            metrics=read_jsonl(path / "metrics.jsonl"),
            charged=Ledger.from_dict(budget.get("charged", {})),
            spent=Ledger.from_dict(budget.get("spent", {})),
            budget={name: limit for name, limit in (budget.get("budget") or {}).items() if limit is not None},
            track=str(budget.get("track", "")),
            stages=budget.get("stages", []),
            lineage=noted(budget),
        )

    def completions(self, method: str, seed: int) -> list[dict[str, Any]]:
        """Read the completions of one cell alone; none where there are none."""
        return read_jsonl(self.cell_path(method, seed) / "completions.jsonl")

    def _trimmed_scores(self, method: str, seed: int) -> list[dict[str, Any]]:
        """Return the scores of a cell whose run folder was trimmed to results.parquet, a tenth of their size."""
        kept = None if (self.cell_path(method, seed) / "scores.jsonl").is_file() else self._trimmed
        if kept is None:
            return []
        kept = kept[(kept["method"] == method) & (kept["seed"] == seed)].reset_index(drop=True)
        kept["value"] = kept["value"].astype(object).where(kept["value"].notna(), None)  # as JSON has it: null
        columns = [*SCORE_COLUMNS, "cluster"]
        rows = kept[columns].itertuples(index=False, name=None)
        return [dict(zip(columns, row, strict=True)) for row in rows]

    @cached_property
    def _trimmed(self) -> pd.DataFrame | None:
        table = self.path / "results.parquet"
        return pd.read_parquet(table) if table.is_file() else None

    def write_cell(
        self,
        method: str,
        seed: int,
        *,
        config: Mapping[str, Any] | None = None,
        completions: Iterable[Mapping[str, Any]] | None = None,
        scores: Iterable[Mapping[str, Any]] | None = None,
        metrics: Iterable[Mapping[str, Any]] | None = None,
        budget: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the given files of a cell whole, leaving the others as they are."""
        path = self.cell_path(method, seed)
        if config is not None:
            atomic_write(path / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))
        for name, rows in (("completions", completions), ("scores", scores), ("metrics", metrics)):
            if rows is not None:
                write_jsonl(path / f"{name}.jsonl", rows)
        if budget is not None:
            write_json(path / "budget.json", budget)

    def append_metrics(self, method: str, seed: int, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add lines to metrics.jsonl."""
        append_jsonl(self.cell_path(method, seed) / "metrics.jsonl", rows)

    def finish_cell(self, method: str, seed: int, stopped: str = "finished", **notes: Any) -> None:
        """Mark a cell DONE.

        Args:
            method: Its method.
            seed: Its seed.
            stopped: ``finished`` or ``budget``.
            **notes: Further facts, such as the ``rise`` of the training reward at the end.
        """
        self._end(method, seed, "DONE", {"stopped": stopped, **notes})

    def fail_cell(self, method: str, seed: int, error: str, traceback: str = "") -> None:
        """Mark a cell FAILED, with why."""
        self._end(method, seed, "FAILED", {"error": error, "traceback": traceback})

    def _end(self, method: str, seed: int, state: State, outcome: Mapping[str, Any]) -> None:
        path = self.cell_path(method, seed)
        # The other mark goes first: a kill in between leaves an unfinished cell, never one that is both.
        (path / ("FAILED" if state == "DONE" else "DONE")).unlink(missing_ok=True)
        atomic_write(path / state, dump_json(outcome) + "\n")
        (self.path / self._progress_name(f"{method}/{seed}")).unlink(missing_ok=True)
        self.mark(method, seed, state)

    # Results

    def frame(self) -> pd.DataFrame:
        """Return the scores of every finished cell as a tidy table with the columns of ``FRAME_COLUMNS``."""
        name = str(self.suite.get("name", self.name))
        cells = [self.read_cell(method, seed) for method, seed in self.cells() if self.state(method, seed) == "DONE"]
        return tidy(name, cells)

    def write_results_parquet(self) -> Path:
        """Write results.parquet and return its path."""
        buffer = io.BytesIO()
        self.frame().to_parquet(buffer, index=False)
        path = self.path / "results.parquet"
        atomic_write(path, buffer.getvalue())
        return path


def _split(key: str) -> tuple[str, int]:
    method, _, seed = key.rpartition("/")
    return method, int(seed)


@lru_cache(maxsize=256)
def _parsed(text: str) -> Any:
    """Parse YAML; a suite is read many times, and a method's seeds share a config. Nobody changes what is inside."""
    return yaml.safe_load(text)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        return dict(_parsed(path.read_text(encoding="utf-8")) or {})
    except FileNotFoundError:
        return {}
    except yaml.YAMLError as error:
        raise BadInput(f"{path} is not YAML ({' '.join(str(error).split())}); run the cell again") from None
