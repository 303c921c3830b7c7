"""What the statistics say of a run: each is one question to a ``Results`` object, as ``docs/evaluation.md`` explains.

The modules behind them take plain arrays; here the arrays come from a run's scores and completions.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from alignarena.core.errors import BadInput
from alignarena.results import best_of_n as sampled
from alignarena.results import kl as estimators
from alignarena.results import over_optimisation as curves
from alignarena.results.frontier import Envelope, envelope
from alignarena.results.head_to_head import judgments
from alignarena.results.length_control import FEWEST_PROMPTS_LENGTH_CONTROLLED, Games, length_controlled_interval
from alignarena.results.ratings import Model, Ratings, rate
from alignarena.results.stats import UNKNOWN, Interval, mean_interval
from alignarena.results.win_rates import WinRate
from alignarena.results.win_rates import win_rate as summarised

if TYPE_CHECKING:
    from alignarena.results.frame import Entry, Results

_KEYS = ["seed", "prompt_id", "sample"]


@dataclass(frozen=True)
class KL:
    """A policy's distance to SFT on its own samples, nats.

    Attributes:
        k1: Mean log-ratio a completion, which is what the leaderboard shows.
        k3: Mean of r - 1 - log r a completion: never below 0, with a heavy tail.
        per_token: Total log-ratio over total tokens.
        analytic: Whether it is a bound from a formula (best-of-n), which has no k3.
    """

    k1: Interval
    k3: Interval
    per_token: float
    analytic: bool


def win_rate(results: Results, label: str, metric: str = "win") -> WinRate:
    """Return how often a method beats SFT.

    Args:
        results: One run or more.
        label: The method.
        metric: ``win``, by the suite's judge, or ``judge_NAME`` of ``alignarena score --judge``.
    """
    return summarised(results.samples(label, metric))


def length_controlled(results: Results, label: str, metric: str = "win") -> Interval:
    """Return how often a method would beat SFT were both equally long; NaN where it is not estimable.

    The mean over seeds, with the whole fit bootstrapped. Arguments as in :func:`win_rate`.
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


def ratings(results: Results, metric: str = "gold", model: Model = "bradley_terry") -> Ratings:
    """Rate the methods of one suite against each other, prompt by prompt, by which scored higher; SFT has 1000.

    Raises:
        BadInput: Several suites, or nothing that two methods were both scored on.
    """
    return rate(judgments(results, metric), _baseline(results), model)


def kl(results: Results, label: str) -> KL:
    """Return a method's distance to SFT by several estimators; NaN where it was not scored."""
    entry, samples = results.entry(label), results.samples(label, "kl")
    card = (entry.folder.provenance.get("methods") or {}).get(entry.method) or {}
    analytic = bool(card.get("kl"))
    k3 = [(estimators.k3(values, np.zeros(len(values))), clusters) for values, clusters in samples]
    tokens = sum(int(row.get("tokens") or 0) for cell in entry.finished for row in cell.completions)
    total = float(sum(np.sum(values) for values, _ in samples))
    return KL(mean_interval(samples), UNKNOWN if analytic else mean_interval(k3),
              total / tokens if samples and tokens else math.nan, analytic)  # fmt: skip


def kl_and_reward(results: Results, metric: str = "gold") -> pd.DataFrame:
    """Return where each method of one suite ended: ``method, kl, reward, gain`` (over SFT), SFT at a KL of 0.

    A bound on best-of-n's KL is on another scale, so it is left out, and the base model began nowhere near SFT.

    Raises:
        BadInput: Several suites.
    """
    start = results.interval(_baseline(results), metric).mean
    rows = []
    for label, entry in results.entries.items():
        distance, reward = kl(results, label), results.interval(label, metric).mean
        if not distance.analytic and entry.method != "base":
            rows.append([label, 0.0 if entry.is_baseline else distance.k1.mean, reward, reward - start])
    return pd.DataFrame(rows, columns=["method", "kl", "reward", "gain"]).dropna(ignore_index=True)


def frontier(results: Results, metric: str = "gold") -> Envelope:
    """Return the best reward that the methods of one suite reached at each KL."""
    points = kl_and_reward(results, metric)
    return envelope(points["kl"], points["reward"])


def over_optimisation(
    results: Results, methods: Collection[str], metric: str = "gold", form: curves.Form = "rl"
) -> curves.OverOptimisation | None:
    """Fit the curve of Gao et al. through where some methods ended: one method at several strengths, say.

    Returns:
        ``None`` with fewer than three of them far enough from SFT.
    """
    points = kl_and_reward(results, metric)
    chosen = points[points["method"].isin(methods)]
    return curves.fit(chosen["kl"], chosen["gain"], form)


def best_of_n(
    results: Results, label: str, chosen_by: str = "proxy_reward", metric: str = "gold"
) -> dict[int, Interval]:  # fmt: skip
    """Return what the best of n of a method's own samples would be worth, for each n up to the samples of a prompt.

    Args:
        results: One run or more.
        label: Whose samples.
        chosen_by: The score by which the best is chosen.
        metric: What it is then worth.
    """
    scores = results.frame[results.frame["method"] == label]
    tables = [scores[scores["metric"] == name].pivot(index=["seed", "prompt_id", "cluster"], columns="sample",
                                                     values="value") for name in (chosen_by, metric)]  # fmt: skip
    shared = tables[0].dropna().index.intersection(tables[1].dropna().index)
    chosen, worth = (table.loc[shared] for table in tables)
    count = chosen.shape[1] if len(shared) else 0
    found = {}
    for n in range(1, count + 1):
        rewards = pd.Series(sampled.best_of_n_reward(n, chosen.to_numpy(), worth.to_numpy()), index=shared)
        seeds = [rewards[rewards.index.get_level_values("seed") == seed] for seed in shared.unique("seed")]
        found[n] = mean_interval([(one.to_numpy(), one.index.get_level_values("cluster").to_numpy()) for one in seeds])
    return found


def _baseline(results: Results) -> str:
    found = {entry.baseline for entry in results.entries.values()}
    if len(found) != 1:
        raise BadInput(f"these runs are of {len(found)} suites, whose methods answered different prompts; load one run")
    return found.pop()


def _characters(entry: Entry) -> pd.DataFrame:
    rows = [
        (cell.seed, str(row["prompt_id"]), int(row["sample"]), len(row["completion"]))
        for cell in entry.finished
        for row in cell.completions
    ]
    return pd.DataFrame(rows, columns=[*_KEYS, "characters"])
