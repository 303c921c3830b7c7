"""How completions look, whatever they are worth: length, endings, variety of words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

_WORD = re.compile(r"\w+(?:['\u2019]\w+)?")


def measures(row: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the behaviour of one completion.

    Returns:
        ``length`` in tokens, EOS included; ``inference_tokens`` spent on the answer (n times more for best-of-n);
        ``eos`` 1.0 if it ends by itself; ``distinct_1`` and ``distinct_2``, the number of different words and word
        pairs over all of them, ``None`` where it has none.
    """
    words = [word.lower() for word in _WORD.findall(row["completion"])]
    length = float(len(row["completion_ids"]))
    return {
        "length": length,
        "inference_tokens": float(row.get("inference_tokens") or length),
        "eos": float(row["finish_reason"] == "stop"),
        "distinct_1": _distinct(words),
        "distinct_2": _distinct(list(pairwise(words))),
    }


def _distinct(items: list[Any]) -> float | None:
    """Li et al. 2016 (arXiv:1510.03055): distinct items over all items."""
    return len(set(items)) / len(items) if items else None
