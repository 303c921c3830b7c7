"""Degenerate inputs as the lab's verbs meet them: rows that say little or nothing are counted, whoever uses them.

Each function looks at the rows of one verb and returns how many it looked at and how many of them are of each kind.
What is then done with such rows is the business of who reads them; docs/degenerate.md says it kind by kind.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import Any

from alignarena.core.contract import Rows
from alignarena.core.errors import RunFailed
from alignarena.core.rows import column

ROWS, COMPLETIONS = "rows to train on", "completions"
PROMPTS, SETS, PAIRS = "prompts scored more than once", "sets scored", "pairs compared"
UNFINISHED, EMPTY, REPEATED = "unfinished completions", "empty completions", "repeated completions"
EQUAL_PROMPTS, EQUAL_SETS = "prompts of equal scores", "sets of equal scores"
TIED, IDENTICAL, CONTRADICTED = "tied pairs", "identical pairs", "contradicted pairs"
# what is counted, and among what
AMONG = {
    **dict.fromkeys((UNFINISHED, EMPTY, REPEATED), COMPLETIONS),
    EQUAL_PROMPTS: PROMPTS,
    EQUAL_SETS: SETS,
    **dict.fromkeys((TIED, IDENTICAL, CONTRADICTED), PAIRS),
}


def in_samples(rows: Rows) -> Counter[str]:
    """Count completions that were cut, that say nothing before they end, or that their prompt has already."""
    given = zip(column(rows, "prompt_id"), column(rows, "completion_ids"), strict=True)
    distinct = {(prompt_id, tuple(ids)) for prompt_id, ids in given}
    return Counter(
        {
            COMPLETIONS: len(rows),
            UNFINISHED: sum(reason != "stop" for reason in column(rows, "finish_reason")),
            EMPTY: sum(not text.strip() for text in column(rows, "completion")),
            REPEATED: len(rows) - len(distinct),
        }
    )


def in_scores(prompt_ids: Iterable[str], scores: Iterable[float]) -> Counter[str]:
    """Count prompts whose completions all have one score, and whether those of all prompts together have."""
    groups: dict[str, list[float]] = {}
    for prompt_id, score in zip(prompt_ids, scores, strict=True):
        groups.setdefault(prompt_id, []).append(score)
    several = [group for group in groups.values() if len(group) > 1]
    every = [score for group in groups.values() for score in group]
    return Counter(
        {
            PROMPTS: len(several),
            EQUAL_PROMPTS: sum(len(set(group)) == 1 for group in several),
            SETS: int(len(every) > 1),
            EQUAL_SETS: int(len(every) > 1 and len(set(every)) == 1),
        }
    )


def in_preferences(rows: Rows) -> Counter[str]:
    """Count pairs of a ranking that are tied, whose texts are equal, or that another pair says the other way round."""
    compared = list(_compared(rows))
    strict = [(prompt, *texts) for prompt, texts, tied in compared if not tied and texts[0] != texts[1]]
    said = set(strict)
    return Counter(
        {
            PAIRS: len(compared),
            TIED: sum(tied for _, _, tied in compared),
            IDENTICAL: sum(texts[0] == texts[1] for _, texts, _ in compared),
            CONTRADICTED: sum((prompt, loser, winner) in said for prompt, winner, loser in strict),
        }
    )


def _compared(rows: Rows) -> Iterator[tuple[str, tuple[str, str], bool]]:
    """Yield the prompt of each pair, its texts with the better one first, and whether they are tied."""
    for row in rows.to_list():
        ranked = zip(row["completions"], row["ranks"], strict=True)
        for (first, rank), (second, other) in combinations(ranked, 2):
            yield row["prompt_id"], (first, second) if rank <= other else (second, first), rank == other


def must_be_finite(value: Any, prompt_id: str, giver: str, what: str) -> None:
    """Refuse feedback that is no number: one made up for it would be feedback, too, and 0 may be a good score.

    Args:
        value: A number, or a list of them.
        prompt_id: Of the row it stands in.
        giver: Who gave it.
        what: What it is.

    Raises:
        RunFailed: It is missing, infinite or not a number.
    """
    numbers = value if isinstance(value, (list, tuple)) else (value,)
    if None in numbers or not all(map(math.isfinite, numbers)):
        raise RunFailed(f"{giver}: the {what} of prompt {prompt_id!r} must be finite, not {value}")
