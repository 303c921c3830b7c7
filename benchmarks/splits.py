"""What a suite's data is: the splits, how they are cut by prompt, and the report of what was dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from alignarena.core.errors import BadInput, nearest
from alignarena.core.seeds import derive
from alignarena.evaluators.exact.world import World

Row = dict[str, Any]
TooLong = Callable[[Any, str], bool]  # (prompt, completion) -> beyond the limits; completion "": the prompt alone
T = TypeVar("T")

TOO_LONG = "longer than max_prompt_tokens/max_new_tokens"
# Share of the prompts that each split holds, where a dataset does not come split.
SHARES = {
    "sft": 0.10,
    "reward_model": 0.25,
    "reward_model_judge": 0.25,
    "train": 0.12,
    "validation": 0.03,
    "evaluation": 0.10,
    "heldout": 0.15,
}


@dataclass(frozen=True)
class DataConfig:
    """Where the rows come from and how many prompts each split may use."""

    dataset: str
    path: str | None = None  # a local file or folder; None: built in, $ALIGNARENA_DATA or the Hub
    axes: tuple[str, ...] = ()  # the axes to use; empty: all that the dataset has
    source_splits: tuple[Literal["train", "test"], ...] = ("test",)  # files of hh-rlhf that are pooled and split anew
    sizes: dict[str, int] = field(default_factory=dict)  # split -> how many prompts, over all axes; absent: all
    world: World = field(default_factory=World)  # of the dataset `exact`

    def __post_init__(self) -> None:
        """Check the names and sizes of the splits.

        Raises:
            BadInput: An unknown split or a negative size.
        """
        for name, size in self.sizes.items():
            if name not in SHARES:
                raise BadInput(f"unknown key 'data.sizes.{name}'{nearest(name, SHARES)}")
            if size < 0:
                raise BadInput(f"data.sizes.{name}: must not be negative, got {size}")
        if not self.source_splits:
            raise BadInput("data.source_splits: name at least one of train, test")


@dataclass(frozen=True)
class SourceReport:
    """What became of the rows of one file or Hub split."""

    source: str
    read: int
    kept: int
    dropped: dict[str, int]  # reason -> rows


@dataclass(frozen=True)
class SplitReport:
    """How much of a split a suite uses."""

    prompts: int
    rows: int
    available: int  # prompts kept for this split, before data.sizes


@dataclass(frozen=True)
class DatasetReport:
    """Rows read, kept and dropped by source, and the splits they went to."""

    dataset: str
    sources: tuple[SourceReport, ...]
    splits: dict[str, SplitReport]


@dataclass(frozen=True)
class Splits:
    """The rows of a suite, disjoint by prompt. All carry ``prompt_id, prompt, cluster, axis, kind``.

    Human pairs add ``pair_id, chosen, rejected`` and, where the data has it, ``margin``. Where people are simulated the
    three mappings are empty, and the annotator ranks samples on ``feedback_prompts``.
    """

    demonstrations: list[Row]  # split sft: prompt, completion
    feedback_prompts: list[Row]  # split reward_model: its prompts, without completions
    preferences: dict[str, list[Row]]  # split reward_model: pairs by axis, and all of them as "overall"
    judge_preferences: dict[str, list[Row]]  # split reward_model_judge, likewise: for the diagnostic judge only
    prompts: list[Row]  # split train
    validation: list[Row]
    evaluation: list[Row]
    heldout: dict[str, list[Row]]  # split heldout: pairs by axis, never trained on
    report: DatasetReport


@dataclass(frozen=True)
class UnmadeModel:
    """What is known of a dataset's own base model before it is made: what a dry run plans with."""

    tokenizer: Any
    shape: Any  # its transformers configuration
    words: tuple[str, ...]  # what its completions are made of


class Dropped(Exception):
    """Raised while parsing a row that cannot be used; the message is the reason it is counted under."""


def sift(source: str, rows: Iterable[Row], parse: Callable[[Row], T]) -> tuple[list[T], SourceReport]:
    """Parse rows and count those dropped by reason.

    Args:
        source: The file or Hub split, for the report.
        rows: Rows as read.
        parse: Returns what to keep, or raises :class:`Dropped`.
    """
    kept: list[T] = []
    dropped: Counter[str] = Counter()
    for row in rows:
        try:
            kept.append(parse(row))
        except Dropped as why:
            dropped[str(why)] += 1
    return kept, SourceReport(source, len(kept) + dropped.total(), len(kept), dict(dropped.most_common()))


def split_of(content: str) -> str:
    """Return the split of a text: by its content alone, so no seed, size or other row ever moves it."""
    position = derive(0, "split", content) / 2**64 * sum(SHARES.values())
    for name, share in SHARES.items():
        position -= share
        if position < 0:
            return name
    return name


def take(rows: list[Row], size: int | None) -> list[Row]:
    """Return all rows of the first ``size`` prompts, in an order that spreads any size over clusters and axes."""
    by_prompt: dict[str, list[Row]] = {}
    for row in rows:
        by_prompt.setdefault(row["prompt_id"], []).append(row)
    seen: Counter[tuple[str, str]] = Counter()
    order: dict[str, tuple[int, int]] = {}
    for prompt_id in sorted(by_prompt, key=lambda name: derive(0, "order", name)):
        first = by_prompt[prompt_id][0]
        groups = (("cluster", first["cluster"]), ("axis", first["axis"]))
        order[prompt_id] = (seen[groups[0]], seen[groups[1]])
        seen.update(groups)
    chosen = sorted(order, key=lambda name: order[name])[:size]
    return [row for prompt_id in chosen for row in by_prompt[prompt_id]]


def split_reports(used: dict[str, list[Row]], kept: dict[str, list[Row]]) -> dict[str, SplitReport]:
    """Count what each split uses of the rows that were kept for it."""
    return {name: SplitReport(_prompts(rows), len(rows), _prompts(kept[name])) for name, rows in used.items()}


def _prompts(rows: Iterable[Row]) -> int:
    return len({row["prompt_id"] for row in rows})


def prompt_row(row: Row) -> Row:
    """Return a row without its completions."""
    return {name: value for name, value in row.items() if name not in ("pair_id", "chosen", "rejected", "margin")}


def prompt_rows(rows: Iterable[Row]) -> list[Row]:
    """Return one row a prompt, without completions."""
    return list({row["prompt_id"]: prompt_row(row) for row in rows}.values())
