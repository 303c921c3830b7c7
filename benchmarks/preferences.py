"""A user's own preferences: a JSON Lines or CSV file of ``prompt, chosen, rejected`` and, optionally, ``margin``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from alignarena.benchmarks.pairs import Pair, Prompt, Source, split_pairs
from alignarena.benchmarks.row_files import EXTRA_FIELDS, read_rows
from alignarena.benchmarks.splits import DataConfig, Dropped, Row, Splits, TooLong
from alignarena.core.errors import BadInput

COLUMNS = ("prompt", "chosen", "rejected")


def load(config: DataConfig, too_long: TooLong) -> Splits:
    """Read the file at ``data.path``.

    Raises:
        BadInput: No path, no such file, an empty one, or one without a needed column.
    """
    if config.path is None:
        raise BadInput("data.path: the dataset 'preferences' needs a file; set it with --set data.path=my.jsonl")
    rows = read_rows(Path(config.path).expanduser(), COLUMNS)
    conversational = any(isinstance(row.get("prompt"), list) for row in rows)
    margins = any("margin" in row for row in rows)

    def parse(row: Row) -> Pair:
        return parse_pair(row, conversational=conversational, margins=margins)

    return split_pairs(config, [Source(config.path, rows, parse, "preferences")], too_long)


def files(config: DataConfig) -> list[Path]:
    """Return the file at ``data.path``."""
    return [Path(config.path).expanduser()] if config.path else []


def parse_pair(row: Row, *, conversational: bool, margins: bool) -> Pair:
    """Check one row.

    Args:
        row: ``prompt`` (text, or messages), ``chosen`` and ``rejected`` (text, or one assistant message in a list).
        conversational: Some prompt of the file is a list of messages, so all become one: a column has one type.
        margins: The file has margins, so every pair must.

    Raises:
        Dropped: A value is missing, empty or of another type.
    """
    if EXTRA_FIELDS in row:
        raise Dropped("more fields than columns")
    prompt = _prompt(row.get("prompt"))
    if conversational and isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    margin = _margin(row.get("margin")) if margins else None
    return Pair(prompt, _completion(row.get("chosen")), _completion(row.get("rejected")), margin)


def _prompt(value: Any) -> Prompt:
    if isinstance(value, str):
        if not value.strip():
            raise Dropped("empty prompt")
        return value.strip()
    if not isinstance(value, list) or not value or not all(_is_message(message) for message in value):
        raise Dropped("prompt is neither text nor messages")
    if value[-1]["role"] != "user":
        raise Dropped("prompt does not end with a user turn")
    return [{"role": message["role"], "content": message["content"]} for message in value]


def _is_message(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.get("role") in ("system", "user", "assistant")
        and isinstance(value.get("content"), str)
    )


def _completion(value: Any) -> str:
    if isinstance(value, list) and len(value) == 1 and _is_message(value[0]):
        value = value[0]["content"]
    if value is None:
        raise Dropped("empty completion")
    if not isinstance(value, str):
        raise Dropped("completion is not text")
    return value.strip()


def _margin(value: Any) -> float:
    try:
        margin = float(value)
    except (TypeError, ValueError):
        raise Dropped("margin is not a number") from None
    if not math.isfinite(margin):
        raise Dropped("margin is not a number")
    return margin
