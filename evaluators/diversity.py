"""How much completions of one policy differ, and whether the longer ones get the reward: training changes both.

Self-BLEU (Zhu et al., 2018; arXiv:1802.01886): BLEU of a completion against the policy's other completions of the same
prompt. 1 is one sentence again and again, so lower is more various.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

_WORD = re.compile(r"\w+(?:['\u2019]\w+)?|[^\w\s]")
_ORDER = 4


def words(text: str) -> list[str]:
    """Return the words and marks of a text in lower case."""
    return [found.lower() for found in _WORD.findall(text)]


def bleu(hypothesis: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Return sentence BLEU in [0, 1] (Papineni et al., 2002), smoothed as by Lin and Och (2004).

    ``BP exp(mean_k log p_k)`` over orders k = 1 to 4: p_k is the clipped share of k-grams that some reference has, both
    counts plus 1 for k > 1; BP = min(1, exp(1 - r / c)), r the reference length nearest to the hypothesis' c. Orders of
    which the hypothesis has no k-gram are left out.
    """
    if not hypothesis or not references:
        return float(not hypothesis and any(not one for one in references))
    logs = []
    for order in range(1, min(_ORDER, len(hypothesis)) + 1):
        own = _grams(hypothesis, order)
        most: Counter[tuple[str, ...]] = Counter()
        for reference in references:
            most |= _grams(reference, order)
        shared, total, plus = sum((own & most).values()), sum(own.values()), int(order > 1)
        if shared + plus == 0:
            return 0.0
        logs.append(math.log((shared + plus) / (total + plus)))
    length = len(hypothesis)
    nearest = min((len(one) for one in references), key=lambda other: (abs(other - length), other))
    return min(1.0, math.exp(1 - nearest / length)) * math.exp(sum(logs) / len(logs))


def self_bleu(rows: Iterable[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], dict[str, float | None]]]:
    """Yield each row with ``self_bleu`` against the other completions of its prompt; ``None`` where it has none."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(str(row["prompt_id"]), []).append(row)
    for group in groups.values():
        texts = [words(row["completion"]) for row in group]
        for place, row in enumerate(group):
            others = texts[:place] + texts[place + 1 :]
            yield row, {"self_bleu": bleu(texts[place], others) if others else None}


def distinct(texts: Iterable[str], order: int) -> float:
    """Return different n-grams over all n-grams of a whole set of texts (Li et al., 2016; arXiv:1510.03055)."""
    counts: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        counts += _grams(words(text), order)
    return len(counts) / counts.total() if counts else math.nan


def correlation(lengths: ArrayLike, rewards: ArrayLike) -> float:
    """Return Pearson's correlation of lengths (N,) and rewards (N,); NaN without spread in both."""
    both = np.asarray(lengths, float), np.asarray(rewards, float)
    if any(len(one) < 2 or one.std() == 0 for one in both):
        return math.nan
    return float(np.corrcoef(*both)[0, 1])


def _grams(items: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(items[i : i + order]) for i in range(len(items) - order + 1))
