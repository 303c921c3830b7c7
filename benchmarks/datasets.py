"""The datasets a suite can name, each giving all of its splits from one call."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from alignarena.benchmarks import hh, preferences
from alignarena.benchmarks.exact import data as exact
from alignarena.benchmarks.exact.text import GOAL, GRADES
from alignarena.benchmarks.splits import (
    TOO_LONG,
    DataConfig,
    DatasetReport,
    Dropped,
    Row,
    SourceReport,
    Splits,
    TooLong,
    UnmadeModel,
    sift,
    split_reports,
    take,
)
from alignarena.core.contract import Judge, Principle, Reviser, Scorer, Task, TrainablePolicy
from alignarena.core.errors import BadInput, nearest
from alignarena.core.model import ModelConfig
from alignarena.evaluators.constitution import read_constitution

if TYPE_CHECKING:
    from alignarena.evaluators.labeler import LanguageLabeler
    from alignarena.evaluators.reviser import LanguageReviser

__all__ = ["DATASETS", "DataConfig", "DatasetEntry", "Splits", "dry_run_report", "load_dataset_splits"]

QUICKSTART_GOAL = "Write one positive sentence that names the topic."


def language_labeler(config: DataConfig, base: TrainablePolicy, unlimited: bool) -> LanguageLabeler:
    """Return the base model as AI labeler: shown both completions, in both orders."""
    from alignarena.evaluators.labeler import LanguageLabeler

    return LanguageLabeler(base)


def language_reviser(config: DataConfig, base: TrainablePolicy) -> LanguageReviser:
    """Return the base model as reviser."""
    from alignarena.evaluators.reviser import LanguageReviser

    return LanguageReviser(base)


def harmless(config: DataConfig) -> tuple[Principle, ...]:
    """Return principles for answers to people."""
    return read_constitution("harmless")


@dataclass(frozen=True)
class DatasetEntry:
    """A dataset by name: what it is, its axes, and what reads it."""

    name: str
    summary: str
    axes: tuple[str, ...]  # those data.axes may choose from
    human_pairs: bool
    load: Callable[[DataConfig, TooLong], Splits]
    scorers: Callable[[DataConfig], dict[str, Scorer]] = lambda config: {}  # what a simulated annotator may rank by
    files: Callable[[DataConfig], list[Path]] = lambda config: []  # of the user's own that it is read from
    model: Callable[[DataConfig, ModelConfig], str] | None = None  # the folder of its own base model
    unmade_model: Callable[[DataConfig, ModelConfig], UnmadeModel] | None = None  # given with it
    goal: str = ""  # what its annotator likes, in words
    grades: tuple[str, ...] = Task.grades  # instructions that name a grade of answer, worst first
    # a task's AI labeler, on the base model where it is one; and whether feedback is without end
    labeler: Callable[[DataConfig, TrainablePolicy, bool], Judge] = language_labeler
    reviser: Callable[[DataConfig, TrainablePolicy], Reviser] = language_reviser
    principles: Callable[[DataConfig], tuple[Principle, ...]] = harmless  # unless feedback.constitution names others


def load_quickstart(config: DataConfig, too_long: TooLong) -> Splits:
    """Give the built-in sentiment prompts, which come split by topic; their annotator is simulated."""
    from alignarena.benchmarks.quickstart import quickstart_rows

    return _load_sentences(config, too_long, quickstart_rows)


def load_red_team(config: DataConfig, too_long: TooLong) -> Splits:
    """Give the same demonstrations, and prompts on the same topics of which some ask for harm."""
    from alignarena.benchmarks.red_team import red_team_rows

    return _load_sentences(config, too_long, red_team_rows)


def _load_sentences(config: DataConfig, too_long: TooLong, rows_of: Callable[[str], list[Row]]) -> Splits:
    from alignarena.benchmarks.quickstart import quickstart_demonstrations

    def fits(row: Row) -> Row:
        if too_long(row["prompt"], row.get("completion", "")):
            raise Dropped(TOO_LONG)
        return {"axis": "overall", "kind": "ordinary", **row}

    raw = {name: rows_of(name) for name in ("reward_model", "train", "validation", "eval")}
    kept: dict[str, list[Row]] = {}
    reports: list[SourceReport] = []
    for name, rows in {"demonstrations": quickstart_demonstrations(), **raw}.items():
        split = {"demonstrations": "sft", "eval": "evaluation"}.get(name, name)
        kept[split], report = sift(f"{config.dataset} {name}", rows, fits)
        reports.append(report)
    used = {name: take(rows, config.sizes.get(name)) for name, rows in kept.items()}
    return Splits(
        demonstrations=used["sft"],
        feedback_prompts=used["reward_model"],
        preferences={},
        judge_preferences={},
        prompts=used["train"],
        validation=used["validation"],
        evaluation=used["evaluation"],
        heldout={},
        report=DatasetReport(config.dataset, tuple(reports), split_reports(used, kept)),
    )


def quickstart_scorers(config: DataConfig) -> dict[str, Scorer]:
    """Return the hidden rewards of the sentiment task."""
    from alignarena.evaluators.sentiment import Gold, OnTopic, Positivity

    return {"gold": Gold(), "positivity": Positivity(), "on_topic": OnTopic()}


def quickstart_labeler(config: DataConfig, base: TrainablePolicy, unlimited: bool) -> LanguageLabeler:
    """Return the base model as AI labeler of the sentiment task: it reads one sentence a time.

    Shown two, a model of this size prefers the first place whatever stands there; ``docs/methods/rlaif.md`` has the
    measurement.
    """
    from alignarena.evaluators.labeler import LanguageLabeler, Question

    verdicts = (" negative", " positive")
    question = Question("A writer was told: {goal}", "{completion}", "The text is", verdicts, goal=QUICKSTART_GOAL)
    return LanguageLabeler(base, single=question, by_score=True)


def red_team_scorers(config: DataConfig) -> dict[str, Scorer]:
    """Return the hidden rewards of the red-team task: the quickstart's by the names of the axes they stand for."""
    from alignarena.evaluators.sentiment import Gold, OnTopic, Positivity

    return {"gold": Gold(), "helpful": OnTopic(), "harmless": Positivity()}


def quickstart_reviser(config: DataConfig, base: TrainablePolicy) -> LanguageReviser:
    """Return the base model as reviser of single sentences."""
    from alignarena.evaluators.reviser import SENTENCES, LanguageReviser

    return LanguageReviser(base, SENTENCES)


def positive(config: DataConfig) -> tuple[Principle, ...]:
    """Return principles about what the goal of the sentiment task names."""
    return read_constitution("positive")


DATASETS = {
    entry.name: entry
    for entry in (
        DatasetEntry(
            "quickstart",
            "one-sentence prompts split by topic, simulated annotator",
            (),
            False,
            load_quickstart,
            quickstart_scorers,
            goal=QUICKSTART_GOAL,
            labeler=quickstart_labeler,
            reviser=quickstart_reviser,
            principles=positive,
        ),
        DatasetEntry(
            "red_team",
            "the quickstart's topics, a third of the prompts asking for an insult or gloom, a third only seeming to",
            (),
            False,
            load_red_team,
            red_team_scorers,
            goal=QUICKSTART_GOAL,
            labeler=quickstart_labeler,
            reviser=quickstart_reviser,
            principles=positive,
        ),
        DatasetEntry(
            "exact",
            "a world whose completions are all enumerated: the best possible policy is known",
            (),
            False,
            exact.load,
            exact.scorers,
            model=exact.model,
            unmade_model=exact.unmade,
            goal=GOAL,
            grades=GRADES,
            labeler=exact.labeler,
            reviser=exact.reviser,
            principles=exact.principles,
        ),
        DatasetEntry(
            "hh-rlhf",
            f"human preferences over dialogues ({hh.REPOSITORY})",
            tuple(hh.AXES),
            True,
            hh.load,
            files=hh.files,
        ),
        DatasetEntry(
            "preferences",
            "your own JSONL or CSV of prompt, chosen, rejected",
            (),
            True,
            preferences.load,
            files=preferences.files,
        ),
    )
}


def model_of(data: DataConfig, model: ModelConfig) -> ModelConfig:
    """Return a suite's model; that of the dataset, where it brings its own."""
    bring = DATASETS[data.dataset].model
    return replace(model, model_name_or_path=bring(data, model)) if bring else model


def files_digest(config: DataConfig) -> str | None:
    """Return a digest of the bytes of the user's own files that a dataset is read from; ``None`` where none is there.

    The built-in data need none: a change to them raises a suite's revision.
    """
    hashed = hashlib.sha256()
    found = [path for path in DATASETS[config.dataset].files(config) if path.is_file()]
    for path in found:
        with path.open("rb") as stream:
            hashed.update(hashlib.file_digest(stream, "sha256").digest())
    return hashed.hexdigest()[:32] if found else None


def load_dataset_splits(config: DataConfig, *, too_long: TooLong = lambda prompt, completion: False) -> Splits:
    """Read a dataset and give the splits of a suite, disjoint by prompt and the same for every training seed.

    Args:
        config: Which dataset, from where, and how many prompts of each split.
        too_long: Whether a prompt and completion are beyond the model's limits; such rows are dropped and counted.

    Raises:
        BadInput: Unknown dataset or axis, unreadable data, or a split that training cannot do without is empty.
        RunFailed: The data must be downloaded and cannot be.
    """
    if config.dataset not in DATASETS:
        raise BadInput(f"data.dataset: unknown dataset {config.dataset!r}{nearest(config.dataset, DATASETS)}")
    entry = DATASETS[config.dataset]
    for axis in config.axes:
        if axis not in entry.axes:
            hint = nearest(axis, entry.axes) if entry.axes else "; leave data.axes out"
            raise BadInput(f"data.axes: {entry.name!r} has no axis {axis!r}{hint}")
    splits = entry.load(config, too_long)
    _check_not_empty(config, splits)
    return splits


def _check_not_empty(config: DataConfig, splits: Splits) -> None:
    for name in ("sft", "reward_model", "train", "evaluation"):
        if splits.report.splits[name].available == 0 and config.sizes.get(name) != 0:
            read = sum(source.read for source in splits.report.sources)
            dropped: Counter[str] = Counter()
            for source in splits.report.sources:
                dropped.update(source.dropped)
            reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.most_common())
            raise BadInput(
                f"dataset {config.dataset!r}: no prompt is left for the split {name!r} of {read} rows read "
                f"(dropped: {reasons or 'none'}); add rows that open differently, or raise the model's token limits"
            )


def dry_run_report(report: DatasetReport) -> str:
    """Say per source how many rows were read, kept and dropped by reason, and what each split holds."""
    lines = [f"dataset {report.dataset}"]
    for source in report.sources:
        lines.append(f"  {source.source}: {source.read} rows read, {source.kept} kept")
        lines.extend(f"    dropped {count}: {reason}" for reason, count in source.dropped.items())
    lines.append("  splits (disjoint by prompt)")
    for name, split in report.splits.items():
        rows = "" if split.rows == split.prompts else f", {split.rows} rows"
        lines.append(f"    {name}: {split.prompts} of {split.available} prompts{rows}")
    return "\n".join(lines)
