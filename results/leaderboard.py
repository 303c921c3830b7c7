"""The leaderboard: one row a method, its means with intervals, its paired difference to SFT, and what it cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from alignarena.results import stats
from alignarena.results.exact import in_limit

if TYPE_CHECKING:
    from alignarena.results.frame import Comparison, Entry, Results

LEDGER_COLUMNS = ("sampled_tokens", "trained_tokens", "labels", "labeler_calls", "seconds", "peak_memory_mib")
COLUMNS = [
    *("method", "track", "seeds", "gold_reward", "gold_reward_low", "gold_reward_high"),
    *("gold_vs_sft", "gold_vs_sft_low", "gold_vs_sft_high", "on_topic", "proxy_reward"),
    *("win_rate", "win_rate_low", "win_rate_high", "win_rate_length_controlled"),
    *("kl", "mean_length", "inference_tokens"),
    *LEDGER_COLUMNS,
    *("verdict_vs_sft", "status"),
    *("finish_rate", "topic_rate", "sentiment_given_both", "second_sentiment", "disagreement"),
]
# Column and metric of plain means; those with intervals are built by name below.
MEANS = {
    "on_topic": "on_topic",
    "proxy_reward": "proxy_reward",
    "kl": "kl",
    "mean_length": "length",
    "inference_tokens": "inference_tokens",
    "finish_rate": "finished",
    "topic_rate": "topic",
    "sentiment_given_both": "sentiment",
    "second_sentiment": "second_sentiment",
    "disagreement": "disagreement",
}
INTERVALS = {"gold_reward": "gold", "win_rate": "win"}
_ALPHA = 1 - stats.LEVEL


def build(results: Results) -> pd.DataFrame:
    """Return the leaderboard; a missing number is NaN, and a method without a finished seed has none."""
    comparisons = against_baseline(results)
    verdicts = _verdicts(comparisons)
    rows = [_row(results, entry, comparisons, verdicts) for entry in results.entries.values()]
    return pd.DataFrame(rows, columns=COLUMNS)


def against_baseline(results: Results) -> dict[str, Comparison]:
    """Compare every method that may get a verdict with its SFT row, on the primary metric; none in the limit."""
    found = {}
    for entry in results.entries.values():
        metric, baseline = results.primary_metric(entry.label), results.entries.get(entry.baseline)
        if metric is None or entry.is_baseline or baseline is None or in_limit(entry):
            continue
        if results.comparable(entry.label, baseline.label, metric):
            found[entry.label] = results.compare(entry.label, baseline.label, metric)
    return found


def _verdicts(comparisons: Mapping[str, Comparison]) -> dict[str, str]:
    """Verdicts of the family "all methods against SFT": the interval excludes 0 and so does Holm's test."""
    adjusted = stats.holm([comparison.p_value for comparison in comparisons.values()])
    verdicts = {}
    for (label, comparison), p_value in zip(comparisons.items(), adjusted, strict=True):
        outcome = comparison.verdict.outcome if p_value <= _ALPHA else "cannot tell"
        verdicts[label] = f"{outcome} ({comparison.unit})"
    return verdicts


def _row(
    results: Results, entry: Entry, comparisons: Mapping[str, Comparison], verdicts: Mapping[str, str]
) -> dict[str, Any]:
    row: dict[str, Any] = {"method": entry.label, "track": _track(entry), "seeds": len(entry.finished)}
    row["status"] = entry.status
    row["verdict_vs_sft"] = _verdict(entry, verdicts)
    if not entry.finished:
        return row
    for column, metric in MEANS.items():
        row[column] = results.interval(entry.label, metric).mean
    for column, metric in INTERVALS.items():
        interval = results.interval(entry.label, metric)
        row |= {column: interval.mean, f"{column}_low": interval.low, f"{column}_high": interval.high}
    comparison = comparisons.get(entry.label)
    if comparison is not None and comparison.metric == "gold":
        row |= {"gold_vs_sft": comparison.difference}
        row |= {"gold_vs_sft_low": comparison.low, "gold_vs_sft_high": comparison.high}
    row["win_rate_length_controlled"] = _length_controlled(results, entry)
    charged = entry.charged().to_dict()
    return row | {column: charged[column] for column in LEDGER_COLUMNS}


def _verdict(entry: Entry, verdicts: Mapping[str, str]) -> str:
    if entry.is_baseline:
        return "baseline"
    if entry.status != "DONE":
        return f"no verdict ({entry.status})"
    if in_limit(entry):
        return "no verdict (correctness, not a ranking)"
    return verdicts.get(entry.label, "no verdict (not scored)")


def _track(entry: Entry) -> str:
    noted = next((cell.track for cell in entry.cells.values() if cell.track), "")
    return noted or str((entry.folder.suite.get("budget") or {}).get("track", ""))


def _length_controlled(results: Results, entry: Entry) -> float:
    """The length-controlled win rate over all seeds; NaN where it is not estimable."""
    baseline = results.entries.get(entry.baseline)
    if not results.samples(entry.label, "win"):
        return math.nan
    wins = results.frame.loc[
        (results.frame["method"] == entry.label) & (results.frame["metric"] == "win"),
        ["seed", "prompt_id", "sample", "value"],
    ].dropna()
    if baseline is None or wins["prompt_id"].nunique() < stats.FEWEST_PROMPTS_LENGTH_CONTROLLED:
        return math.nan
    keys = ["seed", "prompt_id", "sample"]
    rows = wins.merge(_characters(entry), on=keys).merge(_characters(baseline), on=keys, suffixes=("", "_baseline"))
    rate = stats.length_controlled_win_rate(rows["value"], rows["characters"], rows["characters_baseline"])
    return math.nan if rate is None else rate


def _characters(entry: Entry) -> pd.DataFrame:
    rows = [
        (cell.seed, str(row["prompt_id"]), int(row["sample"]), len(row["completion"]))
        for cell in entry.finished
        for row in cell.completions
    ]
    return pd.DataFrame(rows, columns=["seed", "prompt_id", "sample", "characters"])
