"""Single completions with a label out of pairs, each beside completions of other prompts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from datasets import Dataset

from alignarena.core.contract import Experience, Lab, Policy, Rows, Scorer, TrainablePolicy
from alignarena.core.errors import BadInput


@dataclass(frozen=True)
class Unpaired:
    """The completions of pairs one by one, as KTO reads them."""

    pairs: Experience
    mismatched: int  # completions of other prompts beside each

    @property
    def phases(self) -> int:
        """As many as the pairs have."""
        return self.pairs.phases

    @property
    def value_start(self) -> Scorer | TrainablePolicy | None:
        """What the pairs have."""
        return self.pairs.value_start

    def rows(self, phase: int, policy: Policy, lab: Lab) -> Rows:
        """Return two rows a pair."""
        return mismatched(unpaired(self.pairs.rows(phase, policy, lab)), self.mismatched, lab)


def unpaired(pairs: Rows) -> Rows:
    """Return both completions of each pair with ``desirable``, the probability that it is the preferred one."""
    return Dataset.from_list([single for pair in pairs.to_list() for single in _singles(pair)])


def _singles(pair: dict[str, Any]) -> Iterator[dict[str, Any]]:
    probability = pair.get("probability", 1.0)
    for side, desirable in (("chosen", probability), ("rejected", 1.0 - probability)):
        single = {"prompt_id": pair["prompt_id"], "prompt": pair["prompt"], "completion": pair[side]}
        known = {f"completion{of}": pair[f"{side}{of}"] for of in ("_ids", "_span") if pair.get(f"{side}{of}")}
        yield {**single, **known, "desirable": desirable}


def mismatched(rows: Rows, n: int, lab: Lab) -> Rows:
    """Add ``mismatched``: up to n completions of other prompts, one draw for all rows of a prompt's text.

    Raises:
        BadInput: All rows have one prompt.
    """
    singles = rows.to_list()
    ordered = sorted(singles, key=_text)  # rows of one prompt stand together
    drawn: dict[str, dict[str, Any]] = {}
    start = 0
    for text, group in groupby(ordered, key=_text):
        end = start + len(list(group))
        drawn[text] = _draw(ordered[:start] + ordered[end:], n, lab, text)
        start = end
    return Dataset.from_list([{**row, **drawn[_text(row)]} for row in singles])


def _text(row: dict[str, Any]) -> str:
    return str(row["prompt"])


def _draw(others: list[dict[str, Any]], n: int, lab: Lab, prompt: str) -> dict[str, Any]:
    if not others:
        raise BadInput("completions are to be put beside those of other prompts, but all preferences have one prompt")
    places = lab.random("mismatched", prompt).choice(len(others), min(n, len(others)), replace=False)
    taken = [others[place] for place in places]
    known = [of for of in ("", "_ids") if f"completion{of}" in taken[0]]
    return {f"mismatched{of}": [row[f"completion{of}"] for row in taken] for of in known}
