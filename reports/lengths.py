"""How long completions are, and whether what is rewarded is length."""

from __future__ import annotations

import math

import pandas as pd

from alignarena.reports.table import Shown, Table, is_number, measured, number
from alignarena.results.frame import Results

_REWARDS = {"gold": "length and gold", "proxy_reward": "length and proxy", "win": "length and win"}
_FEWEST = 10  # completions, for a correlation


def table(results: Results) -> Table:
    """Return mean lengths, paired differences to SFT in tokens, and the correlation of length with each reward."""
    frame = results.frame[results.frame["metric"].isin(["length", *_REWARDS]) & results.frame["value"].notna()]
    rewards = [name for name in _REWARDS if name in set(frame["metric"])]
    keys = ["method", "seed", "prompt_id", "sample"]
    wide = frame.pivot_table(index=keys, columns="metric", values="value", sort=False)
    rows, raw = [], []
    for label in [one for one in results.methods if results.samples(one, "length")]:
        own = wide[wide.index.get_level_values("method") == label]
        correlations = [_correlation(own, name) for name in rewards]
        mean = float(own["length"].mean())
        rows.append([Shown(label, sort=label), Shown(number(mean, 1), sort=mean), _to_sft(results, label),
                     *map(_shown, correlations)])  # fmt: skip
        raw.append([label, mean, rows[-1][2].sort if rows[-1][2].text else None, *correlations])
    headings = ["method", "length (tokens)", "difference to SFT (tokens)", *(_REWARDS[name] for name in rewards)]
    columns = ["method", "length", "length_vs_sft", *(f"length_{name}_correlation" for name in rewards)]
    return Table("length", "Length", "", columns, raw, headings, rows)


def _to_sft(results: Results, label: str) -> Shown:
    entry = results.entry(label)
    if entry.is_baseline or not results.comparable(label, entry.baseline, "length"):
        return Shown(reason="nothing to compare with")
    found = results.compare(label, entry.baseline, "length")
    return measured(found.difference, found.low, found.high, 1)


def _correlation(own: pd.DataFrame, reward: str) -> float:
    """Pearson's, over all completions of a method; NaN where one of the two does not vary."""
    known = own[["length", reward]].dropna()
    if len(known) < _FEWEST or known.std().min() == 0:
        return math.nan
    return float(known["length"].corr(known[reward]))


def _shown(value: float) -> Shown:
    return Shown(number(value, 2), sort=value) if is_number(value) else Shown(reason="one of the two does not vary")
