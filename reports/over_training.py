"""Gold against proxy over training: how the training reward and the distance to SFT moved, and where gold ended."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alignarena.reports.style import figure, look, name_beside
from alignarena.reports.table import Shown, Table, is_number, measured, number
from alignarena.results.convergence import REWARDS
from alignarena.results.exact import in_limit
from alignarena.results.frame import Entry, Results
from alignarena.results.over_optimisation import OverOptimisation, fit

_KL = "objective/kl"  # nats a completion; what TRL's trainers log is a mean over tokens, or counts padding


@dataclass(frozen=True)
class Course:
    """One method's way through its last fit, a point each time that samples were scored.

    Attributes:
        label: The method.
        kl: Nats to SFT on the samples of training (P,).
        proxy: The training reward's mean on them (P,).
        fitted: The form of Gao et al. fitted to what the proxy gained; None with too few points away from SFT.
    """

    label: str
    kl: list[float]
    proxy: list[float]
    fitted: OverOptimisation | None


def courses(results: Results) -> list[Course]:
    """Return the course of every method whose training logged a reward and a KL, of its first seed."""
    entries = [entry for entry in results.entries.values() if not in_limit(entry)]
    found = [_course(entry) for entry in entries]
    return [one for one in found if one is not None]


def _course(entry: Entry) -> Course | None:
    rows = next((cell.metrics for cell in entry.finished if cell.metrics), [])
    last = max((row["fit"] for row in rows if "fit" in row), default=None)
    rows = [row for row in rows if row.get("fit") == last]
    reward = next((name for name in REWARDS if any(is_number(row.get(name)) for row in rows)), "")
    rows = [row for row in rows if is_number(row.get(reward)) and is_number(row.get(_KL))]
    seen = dict.fromkeys((row.get("phase"), float(row[_KL]), float(row[reward])) for row in rows)
    if len(seen) < 3:
        return None
    kl, proxy = [max(0.0, one) for _, one, _ in seen], [one for _, _, one in seen]
    gained = [one - proxy[0] for one in proxy]
    return Course(entry.label, kl, proxy, fit(kl, gained, "rl"))


def table(results: Results, found: Sequence[Course]) -> Table:
    """Return where each course led: the proxy's gain in training, gold's after it, and the peak that a fit expects."""
    rows, raw = [], []
    for one in found:
        gain = one.proxy[-1] - one.proxy[0]
        baseline = results.entry(one.label).baseline
        gold = results.compare(one.label, baseline, "gold") if results.comparable(one.label, baseline, "gold") else None
        peak = one.fitted.peak if one.fitted else math.nan
        gold_shown = measured(gold.difference, gold.low, gold.high) if gold else Shown(reason="no gold reward here")
        rows.append([Shown(one.label, sort=one.label), Shown(number(one.kl[-1], 2), sort=one.kl[-1]),
                     Shown(number(gain, 3), sort=gain), gold_shown, _peak(one), _explained(one)])  # fmt: skip
        ends = [gold.difference, gold.low, gold.high] if gold else [None] * 3
        explained = one.fitted.explained if one.fitted else None
        raw.append([one.label, one.kl[-1], gain, *ends, peak if math.isfinite(peak) else None, explained])
    columns = ["method", "kl", "proxy_gain", "gold_gain", "gold_low", "gold_high", "peak_kl", "explained"]
    headings = ["method", "KL at the end of training (nats)", "proxy gained in training", "gold vs SFT after it",
                "proxy's peak by the fit (nats)", "R² of the fit"]  # fmt: skip
    return Table("over_training", "Over training", "", columns, raw, headings, rows)


def _peak(one: Course) -> Shown:
    if one.fitted is None:
        return Shown(reason="too few points away from SFT for a fit")
    if math.isinf(one.fitted.peak) or one.fitted.peak > 10 * max(one.kl):
        return Shown("none in reach", sort=math.inf)
    return Shown(number(one.fitted.peak, 1), sort=one.fitted.peak)


def _explained(one: Course) -> Shown:
    if one.fitted is None or not is_number(one.fitted.explained):
        return Shown(reason="too few points away from SFT for a fit")
    return Shown(number(one.fitted.explained, 2), sort=one.fitted.explained)


def plot(results: Results) -> Any | None:
    """The training reward, and below it the distance to SFT, each time that samples were scored."""
    found = courses(results)
    if not found:
        return None
    drawn, grid = figure(6.4, 4.6, 2)
    upper, lower = grid.ravel()
    for one in found:
        colour, marker = look(one.label)
        times, style = range(1, len(one.kl) + 1), {"color": colour, "marker": marker, "markersize": 4}
        upper.plot(times, one.proxy, label=one.label, **style)
        lower.plot(times, one.kl, **style)
    upper.set_ylabel("proxy, mean score")
    lower.set_ylabel("KL to where it began (nats)")
    lower.set_xlabel("times that samples were drawn and scored in training")
    name_beside(drawn)
    return drawn
