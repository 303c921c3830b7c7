"""Human preference pairs into splits: what a pair must be, its stable names, and which split gets it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from alignarena.benchmarks.splits import (
    SHARES,
    TOO_LONG,
    DataConfig,
    DatasetReport,
    Dropped,
    Row,
    SourceReport,
    Splits,
    TooLong,
    prompt_row,
    prompt_rows,
    sift,
    split_of,
    split_reports,
    take,
)

Message = dict[str, str]
Prompt = str | list[Message]
_BOTH = ("chosen", "rejected")
# The completions that a split uses; the others use prompts alone, and lose none of them to a long human answer.
_READS = {"sft": ("chosen",), "reward_model": _BOTH, "reward_model_judge": _BOTH, "heldout": _BOTH}


@dataclass(frozen=True)
class Pair:
    """A prompt and two completions, the first preferred by a person."""

    prompt: Prompt
    chosen: str
    rejected: str
    margin: float | None = None

    def __post_init__(self) -> None:
        """Check that the pair says something.

        Raises:
            Dropped: An empty completion, equal completions, or text that is not valid Unicode.
        """
        if not self.chosen or not self.rejected:
            raise Dropped("empty completion")
        if self.chosen == self.rejected:
            raise Dropped("identical pair")
        try:
            f"{self.content}{self.chosen}{self.rejected}".encode()
        except UnicodeEncodeError:
            raise Dropped("not valid Unicode") from None

    @property
    def content(self) -> str:
        """The prompt as one text."""
        return json.dumps([[m["role"], m["content"]] for m in self._messages], ensure_ascii=False)

    @property
    def opening(self) -> str:
        """The first user turn, without case and spacing.

        One conversation may be in the data several times, cut at different turns: an earlier completion is then part of
        a later prompt. What opens alike goes to one split and is one cluster (12 % of HH's test prompts have a twin).
        """
        first = next(message["content"] for message in self._messages if message["role"] == "user")
        return " ".join(first.casefold().split())

    @property
    def _messages(self) -> list[Message]:
        return [{"role": "user", "content": self.prompt}] if isinstance(self.prompt, str) else self.prompt


def pair_row(pair: Pair, prefix: str, axis: str, kind: str) -> Row:
    """Return the plain row of a pair, named by its content."""
    prompt_id = f"{prefix}/{_name(pair.content)}"
    row: Row = {
        "pair_id": f"{prompt_id}/{_name(pair.chosen, pair.rejected)}",
        "prompt_id": prompt_id,
        "prompt": pair.prompt,
        "cluster": _name(pair.opening),
        "axis": axis,
        "kind": kind,
        "chosen": pair.chosen,
        "rejected": pair.rejected,
    }
    return row if pair.margin is None else {**row, "margin": pair.margin}


@dataclass(frozen=True)
class Source:
    """One file or Hub split of pairs, and how its rows are read and named."""

    name: str
    rows: Iterable[Row]
    parse: Callable[[Row], Pair]  # raises Dropped
    prefix: str  # first part of prompt ids
    axis: str = "overall"
    kind: str = "ordinary"


def split_pairs(config: DataConfig, sources: Iterable[Source], too_long: TooLong) -> Splits:
    """Read the sources, drop what cannot be used, and split by the opening of the prompt.

    Args:
        config: Sizes of the splits.
        sources: Where the pairs come from.
        too_long: Whether a prompt and completion are beyond the model's limits.
    """
    by_split: dict[str, list[Row]] = {name: [] for name in SHARES}
    reports = []
    seen: set[str] = set()
    for source in sources:
        read, report = _read(source, too_long, seen)
        reports.append(report)
        for split, row in read:
            by_split[split].append(row)
    kept = {name: rows if name in _READS else prompt_rows(rows) for name, rows in by_split.items()}
    used = {name: take(rows, config.sizes.get(name)) for name, rows in kept.items()}
    return _assemble(config.dataset, tuple(reports), kept, used)


def _read(source: Source, too_long: TooLong, seen: set[str]) -> tuple[list[tuple[str, Row]], SourceReport]:
    def parse(raw: Row) -> tuple[str, Row]:
        pair = source.parse(raw)
        split, row = split_of(pair.opening), pair_row(pair, source.prefix, source.axis, source.kind)
        if row["pair_id"] in seen:
            raise Dropped("repeated pair")
        if any(too_long(pair.prompt, row[side]) for side in _READS.get(split, ())) or too_long(pair.prompt, ""):
            raise Dropped(TOO_LONG)
        seen.add(row["pair_id"])
        return split, row

    return sift(source.name, source.rows, parse)


def _assemble(
    dataset: str, reports: tuple[SourceReport, ...], kept: dict[str, list[Row]], used: dict[str, list[Row]]
) -> Splits:
    return Splits(
        demonstrations=[{**prompt_row(row), "completion": row["chosen"]} for row in used["sft"]],
        feedback_prompts=prompt_rows(used["reward_model"]),
        preferences={"overall": used["reward_model"], **_by_axis(used["reward_model"])},
        judge_preferences={"overall": used["reward_model_judge"], **_by_axis(used["reward_model_judge"])},
        prompts=used["train"],
        validation=used["validation"],
        evaluation=used["evaluation"],
        heldout=_by_axis(used["heldout"]),
        report=DatasetReport(dataset, reports, split_reports(used, kept)),
    )


def _by_axis(rows: list[Row]) -> dict[str, list[Row]]:
    axes = sorted({row["axis"] for row in rows})
    return {axis: [row for row in rows if row["axis"] == axis] for axis in axes}


def _name(*parts: Any) -> str:
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:12]
