"""What a run left of one method at one seed, and the scores of many as one table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import pandas as pd

from alignarena.core.errors import BadInput
from alignarena.core.records import Ledger
from alignarena.results.convergence import Rise, last_rise

State = Literal["DONE", "FAILED", "RUNNING", "WAITING"]
SCORE_COLUMNS = ["prompt_id", "sample", "evaluator", "metric", "value"]
FRAME_COLUMNS = ["suite", "method", "seed", *SCORE_COLUMNS, "cluster"]


@dataclass(frozen=True)
class Cell:
    """One method at one seed, as far as it got."""

    method: str
    seed: int
    state: State
    outcome: Mapping[str, Any] = field(default_factory=dict)  # of DONE: stopped, rise; of FAILED: error, traceback
    config: Mapping[str, Any] = field(default_factory=dict)
    completions: list[dict[str, Any]] = field(default_factory=list)
    scores: list[dict[str, Any]] = field(default_factory=list)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    charged: Ledger = field(default_factory=Ledger)  # what the method pays for: everything, at its cold cost
    spent: Ledger = field(default_factory=Ledger)  # what the machine really did in this cell
    budget: Mapping[str, float] = field(default_factory=dict)  # the limits that are set
    track: str = ""
    stages: list[dict[str, Any]] = field(default_factory=list)
    lineage: frozenset[str] = frozenset()  # the root scorers and the writers of what was trained on

    @cached_property
    def rise(self) -> Rise | None:
        """How the training reward ended: of its curve; where that was trimmed away, as noted when the run ended."""
        noted = self.outcome.get("rise")
        return last_rise(self.metrics) if self.metrics or not noted else Rise(**noted)

    @property
    def converged(self) -> bool:
        """Whether the run was not still improving when it stopped, as far as its reward curve can tell."""
        return self.rise is None or not self.rise.goes_on


def tidy(suite: str, cells: Iterable[Cell]) -> pd.DataFrame:
    """Return the scores of cells as one table, each row with its cluster.

    That is the row's own, as not all were scored on the prompts of the completions; else that of the prompt's
    completions, else the prompt itself.

    Raises:
        BadInput: A score lacks a column.
    """
    frames = [_scores(suite, cell) for cell in cells if cell.scores]
    empty = pd.DataFrame({name: pd.Series(dtype=dtype) for name, dtype in _DTYPES.items()})
    return pd.concat(frames, ignore_index=True) if frames else empty


_DTYPES = dict.fromkeys(FRAME_COLUMNS, "str") | {"seed": "int64", "sample": "int64", "value": "float64"}


def _scores(suite: str, cell: Cell) -> pd.DataFrame:
    scores = pd.DataFrame(cell.scores)
    missing = [name for name in SCORE_COLUMNS if name not in scores]
    if missing:
        raise BadInput(f"{cell.method}/{cell.seed}/scores.jsonl: no {missing[0]!r} in it; score the run again")
    clusters = {str(row["prompt_id"]): str(row.get("cluster") or row["prompt_id"]) for row in cell.completions}
    scores["prompt_id"] = scores["prompt_id"].astype(str)
    scores["cluster"] = [row.get("cluster") or clusters.get(prompt_id, prompt_id)
                         for row, prompt_id in zip(cell.scores, scores["prompt_id"], strict=True)]  # fmt: skip
    scores = scores.assign(suite=suite, method=cell.method, seed=cell.seed)
    return scores[FRAME_COLUMNS].astype(_DTYPES)
