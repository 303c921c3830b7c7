"""Rows out of JSON Lines and CSV files, plain or gzipped, with errors that name the file, the line and the columns."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, cast

from alignarena.core.errors import BadInput

Row = dict[str, Any]
EXTRA_FIELDS = "(fields without a column)"  # where a CSV row has more fields than the header


def read_rows(path: Path, needed: Sequence[str]) -> list[Row]:
    """Read all rows of a ``.jsonl`` (or ``.json`` with an object a line) or ``.csv`` file, each also as ``.gz``.

    Args:
        path: The file; UTF-8, with or without a byte order mark.
        needed: Columns that some row must have.

    Raises:
        BadInput: The file is missing, unreadable, empty, of another format, or lacks a column.
    """
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix not in _FORMATS:
        raise BadInput(f"{path}: cannot read {suffix or 'a file without a suffix'}; give .jsonl or .csv (or with .gz)")
    try:
        with _open(path) as stream:
            rows = list(_FORMATS[suffix](stream, path))
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not UTF-8 text ({error.reason}); save it as UTF-8") from None
    except FileNotFoundError:
        raise BadInput(f"{path} does not exist; check data.path") from None
    except (OSError, EOFError, zlib.error) as error:
        raise BadInput(f"{path} cannot be read: {error}") from error
    _check_columns(rows, needed, path)
    return rows


def _open(path: Path) -> IO[str]:
    if path.suffix.lower() == ".gz":
        return cast(IO[str], gzip.open(path, "rt", encoding="utf-8-sig", newline=""))
    return open(path, encoding="utf-8-sig", newline="")


def _json_lines(stream: Iterable[str], path: Path) -> Iterator[Row]:
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{path}:{number}: not JSON ({error}); one JSON object a line is needed") from None
        if not isinstance(row, dict):
            raise BadInput(f"{path}:{number}: one JSON object a line is needed, got {type(row).__name__}")
        yield row


def _csv(stream: Iterable[str], path: Path) -> Iterator[Row]:
    csv.field_size_limit(2**31 - 1)  # the default refuses a long dialogue
    reader = csv.DictReader(stream, restkey=EXTRA_FIELDS, skipinitialspace=True)
    try:
        for row in reader:
            yield {str(name).strip(): value for name, value in row.items()}
    except csv.Error as error:
        raise BadInput(f"{path}:{reader.line_num}: not CSV ({error})") from None


_FORMATS = {".jsonl": _json_lines, ".json": _json_lines, ".csv": _csv}


def _check_columns(rows: list[Row], needed: Sequence[str], path: Path) -> None:
    if not rows:
        raise BadInput(f"{path} has no rows; it needs the columns {', '.join(needed)}")
    found = list(dict.fromkeys(name for row in rows for name in row if name != EXTRA_FIELDS))
    missing = [name for name in needed if name not in found]
    if missing:
        raise BadInput(
            f"{path} has no column {', '.join(map(repr, missing))}; found: {', '.join(found)}; "
            f"needed: {', '.join(needed)}"
        )
