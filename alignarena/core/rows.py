"""Rows from Arrow tables, at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pyarrow as pa
from datasets import Dataset

if TYPE_CHECKING:
    from alignarena.core.contract import Rows


def rows_of(table: pa.Table) -> Rows:
    """Return a table as rows.

    Left to itself, ``datasets`` pickles and hashes a table to name it for its own cache, which takes longer than
    sampling a few hundred short completions. Nothing here reads that cache, so any name that is unique will do.
    """
    return Dataset(table, fingerprint=uuid4().hex)


def from_columns(columns: dict[str, list[Any]]) -> Rows:
    """Return columns as rows, where many small ones are made."""
    return rows_of(pa.table(columns))


def with_column(rows: Rows, name: str, values: list[Any]) -> Rows:
    """Return the rows with a column, in place of one of that name where there is one.

    Of selected rows, ``Dataset.add_column`` would first write them out anew, one by one: three times as long.
    """
    table = rows.with_format("arrow")[:]
    kept = table.drop_columns(name) if name in rows.column_names else table
    return rows_of(kept.append_column(name, [values]))
