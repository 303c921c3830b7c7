"""The answer in words: who beats SFT, who cannot be told apart, at what cost, and what kind of claim that is."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignarena.reports.convergence import how_it_ended
from alignarena.reports.roles import roles
from alignarena.reports.table import is_number, number
from alignarena.results import stats
from alignarena.results.comparison import Comparison
from alignarena.results.exact import in_limit
from alignarena.results.frame import Entry, Results
from alignarena.results.verdicts import NOT_WORSE, against_baseline, margin_of

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
_TRACKS = (
    "Told by comparisons alone what is wanted:",
    "Told in words besides (a goal, a grade, an AI labeler's prompt, principles), so no rivals of those above:",
)
_MOST_PAIRS = 12  # that a sentence can name
_ON_TOPIC_SLACK = 0.05  # below SFT by more than this, a gain may come from leaving the topic or not finishing


@dataclass(frozen=True)
class Answer:
    """What one suite's comparison says: sentences, each with a kind that decides how it is marked."""

    suite: str
    lines: list[tuple[str, str]]  # kind (basis, better, margin, ...), sentence


def answers(results: Results) -> list[Answer]:
    """Return the answer of each suite among the results."""
    found = []
    compared = against_baseline(results)
    for entries in results.by_suite().values():
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
    lines = [("basis", _basis(results, entries, metric))]
    tracks = [[entry.label for entry in entries if entry.informed == informed] for informed in (False, True)]
    for track, labels in zip(_TRACKS, tracks, strict=True):
        found = _verdicts(results, labels, rows, compared, metric)
        lines += [("track", track), *found] if tracks[1] and found else found
    lines += [*_margin(entries, rows, metric), *_without_verdict(entries)]
    lines += [("cost", _cost(row)) for row in rows.values() if _short(row["verdict_vs_sft"]) == "better"]
    lines += _warnings(rows, entries[0].baseline)
    return [*lines, *_unit([compared[label] for label in rows if label in compared], len(compared))]


def _verdicts(
    results: Results,
    labels: Sequence[str],
    rows: Mapping[str, Mapping[Any, Any]],
    compared: Mapping[str, Comparison],
    metric: str,
) -> list[tuple[str, str]]:
    """Who of a track is better than SFT, who is worse, and who cannot be told from it or from another."""
    verdicts = {label: _short(rows[label]["verdict_vs_sft"]) for label in labels}
    lines = []
    for outcome, words in (("better", "Better than SFT"), ("worse", "Worse than SFT"), ("cannot tell", "")):
        these = [compared[label] for label in labels if verdicts[label] == outcome and label in compared]
        these.sort(key=lambda comparison: -comparison.difference)
        if these and words:
            lines.append((outcome, f"{words} in {METRIC_NAMES[metric]}: {_list(map(_with_interval, these))}."))
        elif these:
            told = f"{_list(map(_with_interval, these))}, where {_detectable(these)}"
            lines.append(("cannot-tell", f"Cannot be told from SFT: {told}."))
    return lines + _apart(results, [label for label in labels if verdicts[label] in ("better", "cannot tell")], metric)


def _margin(entries: Sequence[Entry], rows: Mapping[str, Mapping[Any, Any]], metric: str) -> list[tuple[str, str]]:
    """Who is not worse than SFT by more than the margin, who is worse, and of whom neither is shown."""
    by = {label: _short(row["not_worse_than_sft"]) for label, row in rows.items()}
    margin = f"{margin_of(entries[0]):g}"
    heads = {
        NOT_WORSE: f"Not worse than SFT by more than {margin} in {METRIC_NAMES[metric]}",
        "worse": "worse than SFT, and perhaps by more than that",
        "cannot tell": "cannot be told, too few data for either",
    }
    groups = {head: [label for label in by if by[label] == outcome] for outcome, head in heads.items()}
    said = "; ".join(f"{head}: {_list(labels)}" for head, labels in groups.items() if labels)
    return [("margin", f"{said[:1].upper()}{said[1:]}.")] if said else []


def _short(verdict: str) -> str:
    return verdict.partition(" (")[0]


def _basis(results: Results, entries: Sequence[Entry], metric: str) -> str:
    rows = results.frame[results.frame["metric"] == metric]
    evaluator = rows.loc[rows["method"].isin([entry.label for entry in entries]), "evaluator"].iloc[0]
    [(_, role, note)] = roles([evaluator], [entries[0].folder])
    described = ", ".join(part for part in (f"a {role} evaluator" if role else "", note) if part)
    return f"Verdicts rest on the {METRIC_NAMES[metric]}: {described}."


def _apart(results: Results, labels: Sequence[str], metric: str) -> list[tuple[str, str]]:
    """Pairs of methods that cannot be told apart, Holm's test taken over all that were compared, and who were not."""
    pairs = list(itertools.combinations(labels, 2))
    strangers = [pair for pair in pairs if not results.comparable(*pair, metric)]
    compared = [results.compare(*pair, metric) for pair in pairs if pair not in strangers]
    undecided = _undecided(compared)
    if len(undecided) > _MOST_PAIRS:
        found = [("cannot-tell", _from_the_best(results, labels, undecided, len(compared), strangers))]
    elif undecided:
        found = [("cannot-tell", f"Cannot be told from each other: {_pairs((one.a, one.b) for one in undecided)}.")]
    elif compared:
        found = [("better", f"Every {'other ' * bool(strangers)}pair among {_list(labels)} can be told apart.")]
    else:
        found = []
    return [*found, *_not_compared(strangers)]


def _undecided(compared: Sequence[Comparison]) -> list[Comparison]:
    adjusted = stats.holm([one.p_value for one in compared])
    return [
        one
        for one, p_value in zip(compared, adjusted, strict=True)
        if p_value > 1 - stats.LEVEL or one.verdict.outcome == "cannot tell"
    ]


def _from_the_best(
    results: Results,
    labels: Sequence[str],
    undecided: Sequence[Comparison],
    pairs: int,
    strangers: Sequence[tuple[str, str]],
) -> str:
    """Of many methods only what cannot be told from the one whose mean is highest."""
    metric = undecided[0].metric
    best = max(labels, key=lambda label: results.interval(label, metric).mean)
    near = [one.b if one.a == best else one.a for one in undecided if best in (one.a, one.b)]
    known = " that it was compared with" if any(best in pair for pair in strangers) else ""
    said = f"cannot be told from it: {_list(near)}" if near else f"it can be told from every other{known}"
    return f"Highest {METRIC_NAMES[metric]}: {best}; {said}. Of {pairs} pairs {len(undecided)} cannot be told apart."


def _not_compared(strangers: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    named = _pairs(strangers) if len(strangers) <= _MOST_PAIRS else f"{len(strangers)} pairs"
    return [("none", f"Not compared, as they share no seed and prompt: {named}.")] if strangers else []


def _pairs(pairs: Iterable[tuple[str, str]]) -> str:
    return "; ".join(f"{a} and {b}" for a, b in pairs)


def _without_verdict(entries: Sequence[Entry]) -> list[tuple[str, str]]:
    stopped = [f"{entry.label} ({_why(entry)})" for entry in entries if entry.status != "DONE"]
    return [("none", f"No verdict: {_list(stopped)}.")] if stopped else []


def _why(entry: Entry) -> str:
    if entry.is_baseline:
        return f"{entry.status}: all others are compared with it"
    return f"{entry.status}: {how_it_ended(entry)}" if entry.status == "not converged" else entry.status


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


def _unit(compared: Sequence[Comparison], family: int) -> list[tuple[str, str]]:
    units = {one.unit: one.smallest_p for one in compared}
    return [("unit", _claim(unit, smallest, family)) for unit, smallest in sorted(units.items())]


def _claim(unit: str, smallest_p: float, methods: int) -> str:
    """What kind of claim it is, and whether there are units enough for one."""
    kind, _, seeds = unit.partition(", ")
    claim, asked = _UNITS[kind].format(seeds), (1 - stats.LEVEL) / methods
    if smallest_p <= asked:
        return claim
    few = f"so few that flipping their signs could not give p below {smallest_p:.2g}, where Holm's test over {methods} "
    few += f"method{'s' * (methods > 1)} asks for {asked:.2g}"
    if kind == "checkpoint":
        return f"{claim} The clusters of prompts are {few}: nothing can be told."
    return f"{claim} They are {few}: these verdicts lean on Student's t, hence on seeds that vary normally."


def _with_interval(one: Comparison) -> str:
    return f"{one.a} ({_signed(one.difference)} [{_signed(one.low)}, {_signed(one.high)}])"


def _detectable(these: Sequence[Comparison]) -> str:
    known = [one.minimum_detectable_difference for one in these if is_number(one.minimum_detectable_difference)]
    if not known:
        return "there are too few prompts to tell anything"
    least, most = number(min(known), 3), number(max(known), 3)
    differences = f"a difference of {most}" if least == most else f"differences of {least} to {most}"
    return f"{differences} would have been found four times in five"


def _signed(value: float) -> str:
    return ("+" if value > 0 else "") + number(value, 3)


def _list(parts: Iterable[str]) -> str:
    *most, last = parts or [""]
    return f"{', '.join(most)} and {last}" if most else last
