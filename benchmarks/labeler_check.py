"""How far a run's AI labeler can be relied on, as a table of the report; charged to no method."""

from __future__ import annotations

from typing import Any

from datasets import Dataset

from alignarena.benchmarks.cell import Bench
from alignarena.core.contract import Judge, Rows
from alignarena.methods.parts.labels import differing, judge_of, quality
from alignarena.methods.parts.rows import rankings
from alignarena.results.stats import bootstrap_interval

_PAIRS = 64  # so many labels of the annotator the check may cost
_WHAT = {
    "pairs": "pairs of SFT samples compared",
    "ties": "share it calls even",
    "confidence": "mean of |2 p - 1|: 0 knows nothing, 1 is certain",
    "consistency": "share whose winner stays when the two change places",
    "position_bias": "share in which the first place wins both times, less that in which the second does",
    "agreement": "share in which the annotator prefers the same one, ties half",
}


def labeler_table(bench: Bench) -> dict[str, Any]:
    """Let the labeler compare SFT samples of prompts that no method trains on, and the annotator a few of the same."""
    task, splits = bench.given.task(bench.sft, bench.lab), bench.given.splits
    prompts = Dataset.from_list((splits.validation or splits.feedback_prompts)[:_PAIRS])
    drawn = differing(rankings(bench.lab.sample(bench.sft, prompts, 2, stream="labeler check")))
    answers = bench.lab.prefer(drawn, judge_of(task))
    rows: list[list[Any]] = [[_WHAT[name], round(value, 4), None, None] for name, value in quality(answers).items()]
    if task.annotator is not None:
        rows.append([_WHAT["agreement"], *_agreement(bench, drawn, answers, task.annotator)])
    return {
        "title": "The AI labeler",
        "caption": "Measured before its labels are believed; 95 % interval over clusters of prompts. Labels of the "
        "annotator for this table are charged to no method. Diagnostic.",
        "columns": ["measure", "value", "low", "high"],
        "rows": rows,
    }


def _agreement(bench: Bench, drawn: Rows, answers: Rows, annotator: Judge) -> list[float]:
    """Return the share of pairs on which both prefer the same, and its interval."""
    theirs = bench.lab.prefer(drawn, annotator)["ranks"]
    same = [0.5 if _sign(a) * _sign(b) == 0 else float(_sign(a) == _sign(b))
            for a, b in zip(answers["ranks"], theirs, strict=True)]  # fmt: skip
    interval = bootstrap_interval(same, list(answers["cluster"]))
    return [round(value, 4) for value in (interval.mean, interval.low, interval.high)]


def _sign(ranks: list[int]) -> int:
    return (ranks[0] < ranks[1]) - (ranks[0] > ranks[1])
