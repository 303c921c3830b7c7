"""Reward against KL: the best that the trained policies of a suite reached at each distance from SFT."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from alignarena.reports.table import Shown, Table, is_number, measured
from alignarena.results.exact import in_limit
from alignarena.results.frame import Entry, Results
from alignarena.results.frontier import KLS, Envelope, envelope, envelope_interval
from alignarena.results.resampling import Floats

REWARDS = {"gold": "gold reward", "proxy_reward": "reward model score"}


@dataclass(frozen=True)
class Frontier:
    """One suite's envelope over its trained methods, and what each prompt says of it.

    Attributes:
        suite: The run's name.
        metric: Which reward.
        labels: The methods whose points it is drawn through, SFT first.
        envelope: Of their means.
        kl: Mean KL of each method on each prompt (P, N).
        reward: Likewise.
        clusters: Of the prompts (N,).
    """

    suite: str
    metric: str
    labels: list[str]
    envelope: Envelope
    kl: Floats
    reward: Floats
    clusters: Sequence[str]


def is_analytic_kl(entry: Entry) -> bool:
    """Whether a method's KL is a bound from a formula rather than measured (best-of-n)."""
    return bool(((entry.folder.provenance.get("methods") or {}).get(entry.method) or {}).get("kl"))


def frontiers(results: Results) -> list[Frontier]:
    """Return the frontier of every suite with two trained methods or more.

    A bound on best-of-n's KL is on another scale, the base model is no policy that began at SFT, and the limit setting
    of the exact laboratory ranks nothing: all three are left out.
    """
    found = [_frontier(results, baseline, entries) for baseline, entries in results.by_suite().items()]
    return [one for one in found if one is not None]


def _frontier(results: Results, baseline: str, entries: list[Entry]) -> Frontier | None:
    kept = [one.label for one in entries if not in_limit(one) and not is_analytic_kl(one) and one.method != "base"]
    metric = next((name for name in REWARDS if any(results.samples(label, name) for label in kept)), None)
    frame = results.frame[results.frame["method"].isin(kept) & results.frame["value"].notna()]
    if metric is None or frame.empty:
        return None
    keys = ["prompt_id", "cluster"]
    tables = [frame[frame["metric"] == name].pivot_table(index=keys, columns="method", values="value", sort=True)
              for name in ("kl", metric)]  # fmt: skip
    labels = [label for label in kept if all(label in table for table in tables)]
    if baseline not in labels or len(labels) < 3:
        return None
    both = tables[0][labels].join(tables[1][labels], lsuffix="/kl", rsuffix="/reward").dropna()
    values, clusters = both.to_numpy().T, both.index.get_level_values("cluster").tolist()
    kl, reward = values[: len(labels)], values[len(labels) :]
    kl[labels.index(baseline)] = 0.0
    return Frontier(baseline.rpartition("/")[0], metric, labels, envelope(kl.mean(axis=1), reward.mean(axis=1)),
                    kl, reward, clusters)  # fmt: skip


def table(found: list[Frontier]) -> Table:
    """Return the reward on each frontier at a few KLs, with intervals over prompts."""
    rows, raw = [], []
    for one in found:
        name = f"{one.suite} {REWARDS[one.metric]}".strip()
        read = [envelope_interval(one.kl, one.reward, one.clusters, _at(kl), n=1000) for kl in KLS]
        rows.append([Shown(name, sort=name), *(_shown(each.mean, each.low, each.high) for each in read)])
        raw.append([name, *(value for each in read for value in (each.mean, each.low, each.high))])
    columns = ["frontier", *(f"kl_{kl:g}{end}" for kl in KLS for end in ("", "_low", "_high"))]
    headings = ["frontier", *(f"at {kl:g} nats" for kl in KLS)]
    return Table("frontier", "Best reward reached by KL", "", columns, raw, headings, rows)


def _at(kl: float) -> Callable[[Envelope], float]:
    return lambda one: one.reward_at(kl)


def _shown(mean: float, low: float, high: float) -> Shown:
    return measured(mean, low, high) if is_number(mean) else Shown(reason="no policy went as far")
