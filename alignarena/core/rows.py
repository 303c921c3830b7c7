"""Rows from Arrow tables and back, at once: what ``datasets`` does row by row or with copies of its own bookkeeping."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pyarrow as pa

if TYPE_CHECKING:
    from alignarena.core.contract import Rows


def rows_of(table: pa.Table) -> Rows:
    """Return a table as rows.

    Left to itself, ``datasets`` pickles and hashes a table to name it for its own cache, which takes longer than
    sampling a few hundred short completions. Nothing here reads that cache, so any name that is unique will do.
    """
    from datasets import Dataset  # here, as reports use this module's neighbours and open in an instant

    return Dataset(table, fingerprint=uuid4().hex)


def from_columns(columns: dict[str, list[Any]]) -> Rows:
    """Return columns as rows, where many small ones are made."""
    return rows_of(pa.table(columns))


def table_of(rows: Rows) -> pa.Table:
    """Return rows as one table; those of a dataset without a selection are not copied."""
    return rows.data.table if rows._indices is None else rows.with_format("arrow")[:]


def column(rows: Rows, name: str) -> list[Any]:
    """Return the values of a column."""
    values: list[Any] = table_of(rows).column(name).to_pylist()
    return values


def taken(rows: Rows, places: Sequence[int]) -> Rows:
    """Return some of the rows, written out: a ``Dataset.select`` gathers them anew, one by one, at each read."""
    return rows_of(table_of(rows).take(pa.array(places, pa.int64())))


def with_column(rows: Rows, name: str, values: list[Any]) -> Rows:
    """Return the rows with a column, in place of one of that name where there is one.

    Of selected rows, ``Dataset.add_column`` would first write them out anew, one by one: three times as long.
    """
    table = table_of(rows)
    kept = table.drop_columns(name) if name in rows.column_names else table
    return rows_of(kept.append_column(name, [values]))
