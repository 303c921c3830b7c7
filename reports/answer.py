"""The answer in words: who beats SFT, who cannot be told apart, at what cost, and what kind of claim that is."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignarena.reports.roles import roles
from alignarena.reports.tables import is_number, number
from alignarena.results import stats
from alignarena.results.exact import in_limit
from alignarena.results.frame import Comparison, Entry, Results
from alignarena.results.leaderboard import against_baseline

METRIC_NAMES = {"gold": "gold reward", "win": "win rate against SFT"}
_IN_LIMIT = (
    "Feedback was exact and unlimited: this shows correctness, not a ranking, so nothing is compared here. Whether "
    "each method reaches its own target stands under Exact laboratory."
)
_UNITS = {
    "checkpoint": "One seed: every statement here is a claim about these checkpoints, not about the methods; another "
    "seed may order them differently.",
    "method": "{}: a claim about the methods on this suite, with the seed as the unit.",
}
_ON_TOPIC_SLACK = 0.05  # below SFT by more than this, a gain may come from leaving the topic or not finishing


@dataclass(frozen=True)
class Answer:
    """What one suite's comparison says: sentences, each with a kind that decides how it is marked."""

    suite: str
    lines: list[tuple[str, str]]  # kind (basis | better | worse | cannot-tell | none | cost | unit | warning), sentence


def answers(results: Results) -> list[Answer]:
    """Return the answer of each suite among the results."""
    found = []
    compared = against_baseline(results)
    for _, group in itertools.groupby(results.entries.values(), key=lambda entry: entry.baseline):
        entries = list(group)
        name = str(entries[0].folder.suite.get("name", entries[0].folder.name))
        found.append(Answer(name, _lines(results, entries, compared)))
    return found


def _lines(results: Results, entries: Sequence[Entry], compared: Mapping[str, Comparison]) -> list[tuple[str, str]]:
    metric = results.primary_metric(entries[0].label)
    if in_limit(entries[0]):
        return [("none", _IN_LIMIT), *_without_verdict(entries)]
    if metric is None:
        nothing = "Nothing was scored that a verdict could rest on: neither gold nor a win rate against SFT."
        return [("none", nothing), *_without_verdict(entries)]
    labels = [entry.label for entry in entries]
    rows = {row["method"]: row for row in results.leaderboard().to_dict("records") if row["method"] in labels}
    verdicts = {label: str(rows[label]["verdict_vs_sft"]).partition(" (")[0] for label in labels}
    lines = [("basis", _basis(results, entries, metric))]
    for outcome, words in (("better", "Better than SFT"), ("worse", "Worse than SFT"), ("cannot tell", "")):
        these = [compared[label] for label in labels if verdicts[label] == outcome and label in compared]
        these.sort(key=lambda comparison: -comparison.difference)
        if these and words:
            lines.append((outcome, f"{words} in {METRIC_NAMES[metric]}: {_list(map(_with_interval, these))}."))
        elif these:
            told = _list(f"{_with_interval(one)}, where {_detectable(one)}" for one in these)
            lines.append(("cannot-tell", f"Cannot be told from SFT: {told}."))
    lines += _apart(results, [label for label in labels if verdicts[label] in ("better", "cannot tell")], metric)
    lines += _without_verdict(entries)
    lines += [("cost", _cost(rows[label])) for label in labels if verdicts[label] == "better"]
    lines += _warnings(rows, entries[0].baseline)
    return [*lines, *_unit(compared[label] for label in labels if label in compared)]


def _basis(results: Results, entries: Sequence[Entry], metric: str) -> str:
    rows = results.frame[results.frame["metric"] == metric]
    evaluator = rows.loc[rows["method"].isin([entry.label for entry in entries]), "evaluator"].iloc[0]
    [(_, role, note)] = roles([evaluator], [entries[0].folder])
    described = ", ".join(part for part in (f"a {role} evaluator" if role else "", note) if part)
    return f"Verdicts rest on the {METRIC_NAMES[metric]}: {described}."


def _apart(results: Results, labels: Sequence[str], metric: str) -> list[tuple[str, str]]:
    """Pairs of methods that cannot be told apart, Holm's test taken over all their pairs."""
    pairs = [(a, b) for a, b in itertools.combinations(labels, 2) if results.comparable(a, b, metric)]
    compared = [results.compare(a, b, metric) for a, b in pairs]
    adjusted = stats.holm([one.p_value for one in compared])
    level = 1 - stats.LEVEL
    undecided = [
        f"{one.a} and {one.b}"
        for one, p_value in zip(compared, adjusted, strict=True)
        if p_value > level or one.verdict.outcome == "cannot tell"
    ]
    if undecided:
        return [("cannot-tell", f"Cannot be told from each other: {'; '.join(undecided)}.")]
    if len(labels) > 1:
        return [("better", f"Every pair among {_list(labels)} can be told apart.")]
    return []


def _without_verdict(entries: Sequence[Entry]) -> list[tuple[str, str]]:
    stopped = [f"{entry.label} ({entry.status})" for entry in entries if entry.status != "DONE"]
    return [("none", f"No verdict: {_list(stopped)}.")] if stopped else []


def _cost(row: dict[Any, Any]) -> str:
    counts = (("sampled_tokens", "sampled tokens"), ("trained_tokens", "trained tokens"), ("labels", "labels"))
    spent = [f"{number(row[name], 0)} {words}" for name, words in (*counts, ("labeler_calls", "labeler calls"))]
    seconds = f"{number(row['seconds'], 0)} s"
    return f"{row['method']} was charged {_list([*spent, seconds])}{_per_answer(row)}."


def _per_answer(row: dict[Any, Any]) -> str:
    known = is_number(row["inference_tokens"])
    return f"; an answer then takes {number(row['inference_tokens'], 1)} tokens" if known else ""


def _warnings(rows: dict[Any, dict[Any, Any]], baseline: str) -> list[tuple[str, str]]:
    start = float(rows[baseline]["on_topic"]) if baseline in rows else math.nan
    below = [row for row in rows.values() if is_number(row["on_topic"]) and row["on_topic"] < start - _ON_TOPIC_SLACK]
    if not below:
        return []
    found = _list(f"{row['method']} ({number(row['on_topic'], 2)})" for row in below)
    share = number(start, 2)
    return [("warning", f"Leaves the topic or fails to finish more often than SFT ({share} on topic): {found}.")]


def _unit(compared: Iterable[Comparison]) -> list[tuple[str, str]]:
    units = sorted({one.unit.partition(", ") for one in compared})
    return [("unit", _UNITS[kind].format(seeds)) for kind, _, seeds in units]


def _with_interval(one: Comparison) -> str:
    return f"{one.a} ({_signed(one.difference)} [{_signed(one.low)}, {_signed(one.high)}])"


def _detectable(one: Comparison) -> str:
    if not is_number(one.minimum_detectable_difference):
        return "there are too few prompts to tell anything"
    return f"a difference of {number(one.minimum_detectable_difference, 3)} would have been found four times in five"


def _signed(value: float) -> str:
    return ("+" if value > 0 else "") + number(value, 3)


def _list(parts: Iterable[str]) -> str:
    *most, last = parts or [""]
    return f"{', '.join(most)} and {last}" if most else last
