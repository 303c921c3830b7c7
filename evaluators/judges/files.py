"""Files of compared completions: JSON, JSONL or CSV, and the columns that common sets use."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignarena.core.errors import BadInput
from alignarena.core.files import read_json, read_jsonl
from alignarena.evaluators.judges.pairs import Pair

_SIDES = (("response1", "response2"), ("a", "b"), ("output_1", "output_2"), ("chosen", "rejected"))


@dataclass(frozen=True)
class Labelled:
    """A pair with what each person said: 1 for a, 2 for b, 0 for a tie."""

    pair: Pair
    labels: tuple[int, ...]


def read_records(path: str | Path) -> list[dict[str, Any]]:
    """Read a list of objects from .json, .jsonl or .csv.

    Raises:
        BadInput: No such file, or it holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"{path} does not exist; give a .json, .jsonl or .csv file")
    if path.suffix == ".jsonl":
        return read_jsonl(path)
    if path.suffix == ".csv":
        with open(path, newline="", encoding="utf-8-sig") as file:
            return list(csv.DictReader(file))
    found = read_json(path)
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise BadInput(f"{path}: expected a list of objects (or write one object a line into a .jsonl file)")
    return found


def read_labelled(path: str | Path) -> list[Labelled]:
    """Read pairs with people's labels.

    Columns: ``prompt``, or ``instruction`` and ``input``; ``response1, response2`` or ``a, b``, with the labels (0 tie,
    1, 2) in ``annotator1, annotator2, ...`` or ``label``; or ``chosen, rejected``, where the label is 1.

    Raises:
        BadInput: A column is missing, or a label is none.
    """
    found = [_labelled(one, f"{path}, record {number}") for number, one in enumerate(read_records(path), start=1)]
    if not found:
        raise BadInput(f"{path}: no pairs in it")
    return found


def _labelled(record: Mapping[str, Any], where: str) -> Labelled:
    sides = next((names for names in _SIDES if names[0] in record), None)
    if sides is None:
        raise BadInput(f"{where}: no completions in it; give response1 and response2, or a and b")
    pair = Pair(prompt_of(record, where), *(text_of(record, side, where) for side in sides))
    if sides[0] == "chosen":
        return Labelled(pair, (1,))
    names = sorted(name for name in record if name.startswith("annotator") and name[9:].isdigit()) or ["label"]
    return Labelled(pair, tuple(_label(record.get(name), f"{where}: {name}") for name in names))


def prompt_of(record: Mapping[str, Any], where: str) -> str:
    """Return the prompt of a record: ``prompt``, or ``instruction`` with its ``input``.

    Raises:
        BadInput: It has neither.
    """
    if "prompt" in record:
        return text_of(record, "prompt", where)
    parts = [text_of(record, "instruction", where), str(record.get("input") or "")]
    return "\n\n".join(part for part in parts if part)


def text_of(record: Mapping[str, Any], name: str, where: str) -> str:
    """Return a column as text; a response that JSON reads as ``true`` or a number is its JSON text.

    Raises:
        BadInput: The record has no such column.
    """
    value = record.get(name)
    if value is None:
        raise BadInput(f"{where}: the column {name!r} is missing")
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _label(value: Any, where: str) -> int:
    text = str(value).strip()
    if text not in ("0", "1", "2"):
        raise BadInput(f"{where}: {value!r} is not a label; write 1, 2, or 0 for a tie")
    return int(text)
