"""The leaderboard: one row a method, its means with intervals, its paired difference to SFT, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from alignarena.results.equal_length import length_controlled
from alignarena.results.scored_pairs import AI_JUDGE, HELD_OUT, UNALIGNED, scored_pairs
from alignarena.results.stats import Interval
from alignarena.results.verdicts import against_baseline, margin_of, not_worse, outcomes, without_verdict

if TYPE_CHECKING:
    from alignarena.results.comparison import Comparison
    from alignarena.results.frame import Entry, Results

LEDGER_COLUMNS = ("sampled_tokens", "trained_tokens", "labels", "labeler_calls", "seconds", "peak_memory_mib")
COLUMNS = [
    *("method", "track", "seeds", "gold_reward", "gold_reward_low", "gold_reward_high"),
    *("gold_vs_sft", "gold_vs_sft_low", "gold_vs_sft_high", "on_topic", "proxy_reward"),
    *("win_rate", "win_rate_low", "win_rate_high", "win_rate_length_controlled"),
    *("kl", "mean_length", "inference_tokens"),
    *LEDGER_COLUMNS,
    *("verdict_vs_sft", "status"),
    *("finish_rate", "topic_rate", "sentiment_given_both", "second_sentiment", "disagreement"),
    *("information", "not_worse_than_sft"),
    *("win_rate_length_controlled_low", "win_rate_length_controlled_high"),
    *("heldout_reward", "ai_judge"),
    *("heldout_reward_low", "heldout_reward_high", "ai_judge_low", "ai_judge_high"),
    *("heldout_reward_accuracy", "heldout_reward_accuracy_low", "heldout_reward_accuracy_high"),
    "heldout_reward_error_correlation",
    *("ai_judge_agreement", "ai_judge_agreement_low", "ai_judge_agreement_high"),
]
EQUAL_LENGTH = "_length_controlled"  # behind the name of a win rate
JUDGE = "judge_"  # metrics of `alignarena score --judge`: each is a column of its own, with its interval, behind these
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
INTERVALS = {"gold_reward": "gold", "win_rate": "win", "heldout_reward": HELD_OUT, "ai_judge": AI_JUDGE}
# Whether a method learns from comparisons alone, or is told in words what is wanted: they are no equal rivals.
PREFERENCE_ONLY, INFORMED = "preference-only", "instruction-informed"


def build(results: Results) -> pd.DataFrame:
    """Return the leaderboard; a missing number is NaN, and a method without a finished seed has none."""
    comparisons = against_baseline(results)
    better, margins = outcomes(comparisons), not_worse(results, comparisons)
    judges, trusted = judge_metrics(results), _trusted(results)
    rows = []
    for entry in results.entries.values():
        baseline = results.entries.get(entry.baseline)
        verdicts = {"verdict_vs_sft": _verdict(entry, baseline, comparisons, better)}
        verdicts["not_worse_than_sft"] = _not_worse(entry, baseline, margins)
        row = _row(results, entry, comparisons.get(entry.label)) | verdicts
        for metric in judges:
            row |= _judged(results, entry.label, metric)
        for metric, known in trusted.get(entry.baseline, {}).items():
            row |= known if results.samples(entry.label, metric) else {}
        rows.append(row)
    own = dict.fromkeys(name for row in rows for name in row if name.startswith(JUDGE))
    return pd.DataFrame(rows, columns=[*COLUMNS, *own])


def judge_metrics(results: Results) -> list[str]:
    """Return the metrics of judges' win rates against SFT."""
    return [metric for metric in results.metrics if metric.startswith(JUDGE)]


def _judged(results: Results, label: str, metric: str) -> dict[str, float]:
    """A judge's win rate of a method, raw and at equal length."""
    raw, controlled = results.interval(label, metric), length_controlled(results, label, metric)
    return _with_limits(metric, raw) | _with_limits(metric + EQUAL_LENGTH, controlled)


def _trusted(results: Results) -> dict[str, dict[str, dict[str, float]]]:
    """How far the scores that no method optimised can be trusted, by SFT row and metric: on aligned policies' pairs."""
    if not {HELD_OUT, AI_JUDGE} & set(results.metrics):
        return {}
    found = {}
    for baseline in {entry.baseline for entry in results.entries.values()}:
        labels = [one.label for one in results.entries.values()
                  if one.baseline == baseline and one.method not in UNALIGNED]  # fmt: skip
        pairs = scored_pairs(results.frame[results.frame["method"].isin(labels)])
        shared = {f"{HELD_OUT}_error_correlation": pairs.shared_errors(HELD_OUT)}
        found[baseline] = {HELD_OUT: _with_limits(f"{HELD_OUT}_accuracy", pairs.accuracy(HELD_OUT)) | shared,
                           AI_JUDGE: _with_limits(f"{AI_JUDGE}_agreement", pairs.accuracy(AI_JUDGE))}  # fmt: skip
    return found


def _with_limits(column: str, interval: Interval) -> dict[str, float]:
    return {column: interval.mean, f"{column}_low": interval.low, f"{column}_high": interval.high}


def _row(results: Results, entry: Entry, comparison: Comparison | None) -> dict[str, Any]:
    row: dict[str, Any] = {"method": entry.label, "track": _track(entry), "seeds": len(entry.finished)}
    row |= {"information": INFORMED if entry.informed else PREFERENCE_ONLY, "status": entry.status}
    if not entry.finished:
        return row
    for column, metric in MEANS.items():
        row[column] = results.interval(entry.label, metric).mean
    for column, metric in INTERVALS.items():
        row |= _with_limits(column, results.interval(entry.label, metric))
    if comparison is not None and comparison.metric == "gold":
        row |= {"gold_vs_sft": comparison.difference}
        row |= {"gold_vs_sft_low": comparison.low, "gold_vs_sft_high": comparison.high}
    row |= _with_limits("win_rate_length_controlled", length_controlled(results, entry.label))
    charged = entry.charged().to_dict()
    return row | {column: charged[column] for column in LEDGER_COLUMNS}


def _verdict(
    entry: Entry, baseline: Entry | None, comparisons: Mapping[str, Comparison], outcomes: Mapping[str, str]
) -> str:
    if entry.status == "not converged" and not entry.is_baseline:
        return "no verdict (not converged)"  # a longer run may order the methods differently
    missing = without_verdict(entry, baseline, outcomes)
    if missing:
        return missing
    one = comparisons[entry.label]  # withheld by now where SFT itself was still improving
    return f"no verdict ({one.withheld})" if one.withheld else f"{outcomes[entry.label]} ({one.unit})"


def _not_worse(entry: Entry, baseline: Entry | None, found: Mapping[str, str]) -> str:
    """A run that was still improving gets this one: of what it came to so far, it says no more than it shows."""
    return without_verdict(entry, baseline, found) or f"{found[entry.label]} (margin {margin_of(entry):g})"


def _track(entry: Entry) -> str:
    noted = next((cell.track for cell in entry.cells.values() if cell.track), "")
    return noted or str((entry.folder.suite.get("budget") or {}).get("track", ""))
