"""Row transforms: pure functions from rows to rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

from datasets import Dataset

from alignarena.core.contract import Lab, Rows
from alignarena.core.errors import RunFailed
from alignarena.core.rows import column, taken


def by_prompt(rows: Rows) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of each prompt, in order of first appearance."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows.to_list():
        groups.setdefault(row["prompt_id"], []).append(row)
    yield from groups.values()


def best_of(rows: Rows, lab: Lab) -> Rows:
    """Keep the best-scored completion of each prompt."""
    return Dataset.from_list([best_row(group, lab) for group in by_prompt(rows)])


def best_row(group: Sequence[dict[str, Any]], lab: Lab) -> dict[str, Any]:
    """Return the best-scored completion of a prompt; ties are broken by the seeded generator, never by position."""
    top = max(row["score"] for row in group)
    tied = [row for row in group if row["score"] == top]
    choice = lab.random("tie", group[0]["prompt_id"]).integers(len(tied)) if len(tied) > 1 else 0
    return tied[int(choice)]


def finished(rows: Rows) -> Rows:
    """Keep completions that end by themselves: training on cut ones teaches a policy never to stop.

    Raises:
        RunFailed: None does.
    """
    kept = [i for i, reason in enumerate(column(rows, "finish_reason")) if reason == "stop"]
    if not kept:
        raise RunFailed(f"none of {len(rows)} completions ends by itself; raise max_new_tokens or train SFT longer")
    return taken(rows, kept)


def rankings(rows: Rows) -> Rows:
    """Put the sampled completions of each prompt side by side, ready for a judge."""
    return Dataset.from_list(
        [
            {
                **{key: group[0][key] for key in group[0] if key not in _OF_ONE_SAMPLE},
                "completions": [row["completion"] for row in group],
                "completions_ids": [row["completion_ids"] for row in group],
                "finish_reasons": [row["finish_reason"] for row in group],
            }
            for group in by_prompt(rows)
        ]
    )


_OF_ONE_SAMPLE = frozenset({"sample", "completion", "completion_ids", "finish_reason", "logps", "score"})


def pairs(preferences: Rows, ties: bool = False) -> Rows:
    """Spread rankings into all their strict pairs ``chosen, rejected, margin``; ties say nothing and are left out.

    Where a labeler compared them, a pair has the ``probability`` that the chosen one is preferred. With ``ties`` every
    pair has one: 1 for a strict pair that no labeler compared, one half for a tie.

    Raises:
        RunFailed: There is no pair: all completions of every prompt are tied.
    """
    found = [pair for row in preferences.to_list() for pair in _pairs(row, ties)]
    if not found:
        raise RunFailed(f"nothing to learn from: the completions of each of {len(preferences)} prompts are tied")
    return Dataset.from_list(found)


def untied(preferences: Rows) -> Rows:
    """Keep the rankings that prefer something: others would only count in a mean over prompts.

    Raises:
        RunFailed: None do.
    """
    kept = [i for i, ranks in enumerate(preferences["ranks"][:]) if len(set(ranks)) > 1]
    if not kept:
        raise RunFailed(f"nothing to learn from: the completions of each of {len(preferences)} prompts are tied")
    return taken(preferences, kept)


def with_repeats_named(preferences: Rows) -> Rows:
    """Add ``same_as`` to rankings: for each completion, the place of the first one that equals it."""
    rows = preferences.to_list()
    compared = [row.get("completions_ids") or row["completions"] for row in rows]
    return Dataset.from_list(
        [{**row, "same_as": [every.index(one) for one in every]} for row, every in zip(rows, compared, strict=True)]
    )


def _pairs(row: dict[str, Any], ties: bool) -> Iterator[dict[str, Any]]:
    ids = row.get("completions_ids")
    for place, (i, j) in enumerate(combinations(range(len(row["completions"])), 2)):
        tied = row["ranks"][i] == row["ranks"][j]
        if tied and not ties:
            continue
        chosen, rejected = (i, j) if row["ranks"][i] <= row["ranks"][j] else (j, i)
        pair = {"prompt_id": row["prompt_id"], "prompt": row["prompt"]}
        pair |= {"chosen": row["completions"][chosen], "rejected": row["completions"][rejected]}
        if ids:
            pair |= {"chosen_ids": ids[chosen], "rejected_ids": ids[rejected]}
        if row.get("margins"):
            pair["margin"] = row["margins"][place]
        if row.get("probability") is not None:  # that the first of two is the better one
            pair["probability"] = max(row["probability"], 1 - row["probability"])
        elif ties:
            pair["probability"] = 0.5 if tied else 1.0
        if row.get("lineage"):
            pair["lineage"] = row["lineage"]
        yield pair
