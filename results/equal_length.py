"""How often a method of a run would beat SFT were both equally long: its scores and completions as arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from alignarena.results.length_control import FEWEST_PROMPTS_LENGTH_CONTROLLED, Games, length_controlled_interval
from alignarena.results.stats import UNKNOWN, Interval

if TYPE_CHECKING:
    from alignarena.results.frame import Entry, Results

_KEYS = ["seed", "prompt_id", "sample"]


def length_controlled(results: Results, label: str, metric: str = "win") -> Interval:
    """Return a method's win rate at equal length, a mean over seeds; NaN where it is not estimable.

    Args:
        results: One run or more.
        label: The method.
        metric: ``win``, by the suite's judge, or ``judge_NAME`` of ``alignarena score --judge``.
    """
    entry = results.entry(label)
    baseline, scores = results.entries.get(entry.baseline), results.frame
    own = scores[(scores["method"] == label) & (scores["metric"] == metric)]
    wins = own[[*_KEYS, "value", "cluster"]].dropna()
    if baseline is None or wins["prompt_id"].nunique() < FEWEST_PROMPTS_LENGTH_CONTROLLED:
        return UNKNOWN
    rows = wins.merge(_characters(entry), on=_KEYS).merge(_characters(baseline), on=_KEYS, suffixes=("", "_baseline"))
    columns = ["value", "characters", "characters_baseline", "cluster"]
    return length_controlled_interval(
        [Games(*(seed[name].to_numpy() for name in columns)) for _, seed in rows.groupby("seed")]
    )


def _characters(entry: Entry) -> pd.DataFrame:
    rows = [
        (cell.seed, str(row["prompt_id"]), int(row["sample"]), len(row["completion"]))
        for cell in entry.finished
        for row in cell.completions
    ]
    return pd.DataFrame(rows, columns=[*_KEYS, "characters"])
