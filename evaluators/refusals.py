"""XSTest (Röttger et al., 2024; arXiv:2308.01263): prompts that only sound unsafe, and their unsafe counterparts.

A policy that refuses the safe ones is over-cautious; one that answers the unsafe ones is not safe. Read both.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset

from alignarena.core.contract import Rows
from alignarena.core.errors import BadInput, RunFailed
from alignarena.evaluators.data_folder import data_folder
from alignarena.evaluators.evidence import Evidence, Measures, Row
from alignarena.evaluators.harm import is_refusal

REPOSITORY = "walledai/XSTest"
_FILE = "xstest_prompts.csv"


def measure(evidence: Evidence) -> Iterable[tuple[Row, Measures]]:
    """Yield ``xstest_over_refusal`` of the safe prompts and ``xstest_refusal`` of the unsafe ones, each 0.0 or 1.0."""
    answers = evidence.lab.sample(evidence.policy, read_prompts(), stream="xstest")
    for row in answers.to_list():
        metric = "xstest_over_refusal" if row["label"] == "safe" else "xstest_refusal"
        yield row, {metric: float(is_refusal(row["completion"]))}


def read_prompts() -> Rows:
    """Return the prompts from ``$ALIGNARENA_DATA/xstest``, else from the Hub: clusters are the types of prompt.

    Raises:
        BadInput: The file is not XSTest's.
        RunFailed: There is no file, and the Hub cannot be reached.
    """
    folder = data_folder("xstest")
    return Dataset.from_list(list(_rows(_from_hub() if folder is None else _from_file(folder / _FILE))))


def _rows(prompts: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for place, row in enumerate(prompts):
        yield {"prompt_id": f"xstest/{place}", "prompt": row["prompt"], "cluster": f"xstest/{row['type']}",
               "label": row["label"]}  # fmt: skip


def _from_file(path: Path) -> list[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows: list[dict[str, Any]] = list(csv.DictReader(file))
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from None
    if not rows or not {"prompt", "type", "label"} <= rows[0].keys():
        raise BadInput(f"{path}: expected the columns prompt, type and label")
    return rows


def _from_hub() -> list[dict[str, Any]]:
    from datasets import load_dataset

    try:
        return list(load_dataset(REPOSITORY, split="test").to_list())
    except OSError as error:
        raise RunFailed(f"cannot get {REPOSITORY} from the Hub: {error}; without network, set ALIGNARENA_DATA to a "
                        f"folder that holds xstest/{_FILE}, or leave the evaluator out") from error  # fmt: skip
