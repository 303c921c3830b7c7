"""Which tables a report has, and what stands in them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from typing import Any

import pandas as pd

from alignarena.core.records import Ledger
from alignarena.reports.table import Shown, Table, is_number, measured, number, plain
from alignarena.reports.text import printable
from alignarena.results import dropped
from alignarena.results.exact import EVALUATOR, in_limit
from alignarena.results.frame import Results
from alignarena.results.leaderboard import COLUMNS, EQUAL_LENGTH, INTERVALS, JUDGE, MEANS, judge_metrics
from alignarena.results.length_control import FEWEST_PROMPTS_LENGTH_CONTROLLED

NO_NUMBERS = ("the run failed", "the run has not finished")  # why a whole row is empty
LEDGER_FIELDS = [field.name for field in fields(Ledger)]


@dataclass(frozen=True)
class Column:
    """How a leaderboard column is read."""

    name: str
    heading: str
    explained: str
    digits: int | None = 3  # None: text

    @property
    def has_interval(self) -> bool:
        """Whether ``NAME_low`` and ``NAME_high`` are columns as well."""
        return f"{self.name}_low" in COLUMNS or self.name.startswith(JUDGE)


READ = [
    Column("method", "method", "the method's key", None),
    Column("gold_reward", "gold reward", "hidden reward, 0 to 1, with its 95 % interval"),
    Column("gold_vs_sft", "gold vs SFT", "paired difference to SFT on the same prompts, with its 95 % interval"),
    Column("verdict_vs_sft", "verdict vs SFT", "the interval excludes 0 and Holm's test over all methods agrees", None),
    Column("not_worse_than_sft", "not worse than SFT", "one-sided test against a stated loss, Holm over all", None),
    Column("on_topic", "on topic", "share of completions that name the topic and finish"),
    Column("proxy_reward", "proxy", "score of the reward model that methods were trained on"),
    Column("heldout_reward", "held-out reward", "score of a linear reward model of other prompts; none optimised it"),
    Column("ai_judge", "AI judge", "mean grade by the AI labeler, -1 to 1, where it gave no training feedback"),
    Column("win_rate", "win rate", "against SFT's completion of the same prompt, ties half, with its 95 % interval"),
    Column("win_rate_length_controlled", "win rate, equal length", "had both sides been equally long; 95 % interval"),
    Column("kl", "KL (nats)", "sum over tokens of log policy - log SFT, on the policy's own samples"),
    Column("mean_length", "length (tokens)", "mean tokens of a completion", 1),
    Column("inference_tokens", "tokens per answer", "tokens generated to give one answer", 1),
    Column("sampled_tokens", "sampled tokens", "tokens generated in training, charged at cold cost", 0),
    Column("trained_tokens", "trained tokens", "tokens through forward and backward, charged at cold cost", 0),
    Column("labels", "labels", "comparisons asked of the annotator; a ranking of K counts log2(K!)", 1),
    Column("labeler_calls", "labeler calls", "calls of the AI labeler", 0),
    Column("seconds", "seconds", "charged wall clock, as if nothing had been in the cache", 0),
    Column("peak_memory_mib", "peak MiB", "largest memory while it ran", 0),
    Column("track", "track", "which count the budget holds equal between methods", None),
    Column("information", "information", "comparisons alone, or also told in words what is wanted", None),
    Column("seeds", "seeds", "finished seeds that the numbers rest on", 0),
    Column("status", "status", "DONE, FAILED or not converged", None),
]
# What stands in the heading of a score that no method optimised: how far to trust it.
_TRUST = {
    "heldout_reward": {"accuracy": "heldout_reward_accuracy", "error correlation": "heldout_reward_error_correlation"},
    "ai_judge": {"agreement with gold": "ai_judge_agreement"},
}


SPLIT = [
    Column("method", "method", "the method's key", None),
    Column("gold_reward", "gold reward", "sentiment where on topic, else 0"),
    Column("on_topic", "on topic", "finished and names the topic"),
    Column("finish_rate", "finish rate", "one finished sentence"),
    Column("topic_rate", "topic rate", "the completion names the topic"),
    Column("sentiment_given_both", "sentiment given both", "positivity of the completions that are on topic"),
    Column("second_sentiment", "second opinion", "an independent sentiment scorer, which nothing was trained on"),
    Column("disagreement", "disagreement", "mean distance between the two sentiment scorers"),
]


def leaderboard(
    results: Results,
    columns: Sequence[Column] | None = None,
    name: str = "leaderboard",
    among: Collection[str] | None = None,
) -> Table:
    """Return the leaderboard, of all methods or those ``among`` it.

    As read it has the given columns (all, and those of judges), without those that were scored for no method.
    """
    columns = read_columns(results) if columns is None else columns
    rows = [row for row in results.leaderboard().to_dict("records") if among is None or row["method"] in among]
    shown = {column: [_shown(results, row, column) for row in rows] for column in columns}
    kept = [column for column in columns if any(cell.text or cell.worth_a_column for cell in shown[column])]
    names = [str(column) for column in results.leaderboard().columns]
    raw = [[row[column] for column in names] for row in rows]
    read = [[shown[column][i] for column in kept] for i in range(len(rows))]
    return Table(name, "Leaderboard", "", names, raw, [_heading(column, rows) for column in kept], read)


def read_columns(results: Results) -> list[Column]:
    """Return the leaderboard's columns as read, the win rates by judges that were asked behind the suite's own."""
    ways = {"": "", EQUAL_LENGTH: ", equal length"}
    own = [Column(one + way, f"win rate by {one.removeprefix(JUDGE)}{words}", "against SFT's completion, both orders")
           for one in judge_metrics(results) for way, words in ways.items()]  # fmt: skip
    place = next(i for i, column in enumerate(READ) if column.name == "kl")
    return [*READ[:place], *own, *READ[place:]]


def _heading(column: Column, rows: Sequence[dict[Any, Any]]) -> str:
    """Say in the heading how far to trust a score, where that is one number: not where suites are read together."""
    known = {words: {row[name] for row in rows if is_number(row[name])}
             for words, name in _TRUST.get(column.name, {}).items()}  # fmt: skip
    said = [f"{words} {number(found.pop(), 2)}" for words, found in known.items() if len(found) == 1]
    return f"{column.heading} ({', '.join(said)})" if said else column.heading


def budget(results: Results) -> Table:
    """Return the cost ledger: what each cell was charged (cold) and what it really spent."""
    rows = [
        [entry.label, seed, account, cell.state, cell.outcome.get("stopped", ""), *ledger.to_dict().values()]
        for entry in results.entries.values()
        for seed, cell in entry.cells.items()
        for account, ledger in (("charged", cell.charged), ("spent", cell.spent))
    ]
    columns = ["method", "seed", "account", "state", "stopped", *LEDGER_FIELDS]
    return plain("budget", "Cost ledger", "", columns, rows)


def axes(results: Results) -> Table:
    """Return every scored metric of every method with its interval: the axes that gold is made of, and the others."""
    known = _sampled(results)
    rows = []
    for (label, evaluator, metric), part in known.groupby(["method", "evaluator", "metric"], sort=False):
        interval = results.interval(str(label), str(metric))
        counts = [int(part.groupby("seed")["prompt_id"].nunique().sum()), len(part)]
        rows.append([label, evaluator, metric, interval.mean, interval.low, interval.high, *counts])
    columns = ["method", "evaluator", "metric", "mean", "low", "high", "prompts", "completions"]
    return plain("axes", "Every metric", "", columns, rows)


def further(results: Results) -> Table:
    """Return the mean and interval of every metric that no leaderboard column shows, a column each."""
    shown = {"gold", *MEANS.values(), *INTERVALS.values(), *judge_metrics(results)}
    metrics = [str(metric) for metric in _sampled(results)["metric"].unique() if metric not in shown]
    rows = []
    for label in results.methods:
        rows.append([Shown(label, sort=label), *(_interval(results, label, metric) for metric in metrics)])
    headings = ["method", *(metric.replace("_", " ") for metric in metrics)]
    return Table("further", "Further metrics", "", ["method", *metrics], [], headings, rows)


def extra(results: Results) -> list[Table]:
    """Return the tables that suites add in RUN/extra."""
    tables = []
    for folder in results.folders:
        prefix = f"{folder.name}-" if len(results.folders) > 1 else ""
        for one in folder.extra():
            texts = (prefix + one["name"], printable(str(one["title"])), printable(str(one["caption"])))
            tables.append(plain(*texts, [printable(str(column)) for column in one["columns"]], one["rows"]))
    return tables


def degenerate(results: Results) -> Table:
    """Return what each method met that says little or nothing, and the rows that were dropped, by reason."""
    lines = {entry.label: dropped.counted(entry.finished) for entry in results.entries.values()}
    rows = [[label, *line] for label, found in lines.items() for line in found or ()]
    before = [label for label, found in lines.items() if found is None]
    caption = f"Run before this was counted: {', '.join(before)}." if before else ""
    return plain("degenerate", "Dropped rows and degenerate inputs", caption, dropped.COLUMNS, rows)


def _sampled(results: Results) -> pd.DataFrame:
    """Known scores but the exact laboratory's, which have a table of their own: a null is an infinity there."""
    return results.frame[results.frame["value"].notna() & (results.frame["evaluator"] != EVALUATOR)]


def _shown(results: Results, row: dict[Any, Any], column: Column) -> Shown:
    value = row[column.name]
    if column.digits is None:
        return Shown(str(value), sort=str(value), reason="" if value else "not known")
    if not is_number(value):
        return Shown(reason=_reason(results, row, column.name), sort="")
    interval, limits = "", None
    if column.has_interval and is_number(row[f"{column.name}_low"]):
        low, high = (number(row[f"{column.name}_{end}"], column.digits) for end in ("low", "high"))
        interval = f"[{low}, {high}]"
        limits = (float(row[f"{column.name}_low"]), float(row[f"{column.name}_high"]))
    return Shown(number(value, column.digits), interval, float(value), limits=limits)


def _interval(results: Results, label: str, metric: str) -> Shown:
    interval = results.interval(label, metric)
    if not is_number(interval.mean):
        return Shown(reason=_withheld(results, label, metric) or "not scored")
    return measured(interval.mean, interval.low, interval.high)


def _withheld(results: Results, label: str, metric: str) -> str:
    """Return why a judge has no verdict on a method; empty if it has, or is none."""
    entry = results.entry(label)
    card = (entry.folder.provenance.get("evaluators") or {}).get(metric) or {}
    reasons = (str(why) for cell, why in (card.get("withheld") or {}).items() if cell.startswith(f"{entry.method}/"))
    return next(reasons, "")


def _reason(results: Results, row: dict[Any, Any], name: str) -> str:
    entry = results.entry(row["method"])
    if not entry.finished:
        return NO_NUMBERS[entry.status != "FAILED"]
    if (name == "gold_vs_sft" or name.startswith(JUDGE)) and entry.is_baseline:
        return "SFT is what the others are compared with"
    if name == "gold_vs_sft" and in_limit(entry):
        return "the limit setting shows correctness, not a ranking"
    raw = name.removesuffix(EQUAL_LENGTH)
    metric = ({"gold_vs_sft": "gold"} | INTERVALS | MEANS).get(raw, raw)
    if not results.samples(entry.label, metric):
        return _withheld(results, entry.label, metric) or "not scored"
    if name != raw:
        return f"not estimable below {FEWEST_PROMPTS_LENGTH_CONTROLLED} prompts, or without spread in length"
    return "nothing to compare with"
