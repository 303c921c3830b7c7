"""Every method against every other on the same prompts, and the ranking by Bradley and Terry that follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap

from alignarena.reports.style import BLUE, ORANGE, figure, look
from alignarena.reports.table import Shown, Table, measured, number, plain
from alignarena.results.exact import setting
from alignarena.results.frame import Entry, Results
from alignarena.results.head_to_head import judgments
from alignarena.results.ratings import Ratings, rate
from alignarena.results.win_rates import WinRate, win_rate

_METRICS = {"gold": "gold reward", "heldout_reward": "held-out reward", "proxy_reward": "reward model's score"}
_RESAMPLES = 1000  # of a rating
_FROM, _TO = 0.15, 0.85  # win rates between which the colours of the matrix run
_PALE = 0.26  # from one half: cells up to here are light
_LARGE = 16  # methods


@dataclass(frozen=True)
class Matches:
    """What the methods of one suite won against each other.

    Attributes:
        name: Of the suite's tables and plots, unique in a report.
        suite: As it is called.
        judged_by: What decides, in words.
        anchor: The SFT row, rated 1000.
        methods: Labels, the highest rated first.
        rates: How often the first of two beats the second.
        ratings: By Bradley and Terry.
    """

    name: str
    suite: str
    judged_by: str
    anchor: str
    methods: list[str]
    rates: dict[tuple[str, str], WinRate]
    ratings: Ratings


@lru_cache(maxsize=1)  # the tables and the figure ask for the same
def matches(results: Results) -> list[Matches]:
    """Return the matches of every suite that has two methods with a score which all share.

    None where SFT, which ratings are relative to, shares no prompt and seed with another. None of the exact laboratory:
    there each policy's reward on each prompt is known whole, so that games between two of them have no chance in them
    and no finite rating.
    """
    suites = results.by_suite().values()
    found = [_matches(results, entries, len(suites) > 1) for entries in suites]
    return [one for one in found if one is not None]


def _matches(results: Results, entries: list[Entry], several: bool) -> Matches | None:
    labels, baseline = [entry.label for entry in entries], entries[0].baseline
    metric = next((name for name in _METRICS if len([one for one in labels if results.samples(one, name)]) > 1), None)
    if metric is None or setting(entries[0].folder) is not None or not results.samples(baseline, metric):
        return None
    games = judgments(results, metric, labels)
    if baseline not in {*games["a"], *games["b"]}:
        return None
    ratings = rate(games, baseline, n=_RESAMPLES)
    rates = {}
    for (a, b), rows in games.groupby(["a", "b"], sort=False):
        samples = [(seed["probability"].to_numpy(), seed["cluster"].to_numpy()) for _, seed in rows.groupby("seed")]
        rates[str(a), str(b)] = win_rate(samples)
    run = baseline.rpartition("/")[0]
    suffix = f"-{run.replace('/', '-')}" if several else ""
    return Matches(f"win_matrix{suffix}", run or str(entries[0].folder.suite.get("name", "")), _METRICS[metric],
                   baseline, list(ratings.elo), rates, ratings)  # fmt: skip


def matrix(one: Matches) -> Table:
    """Return the win rate of the row's method against the column's, with its interval."""
    shown = [[Shown(row, sort=row), *(_cell(one, row, column) for column in one.methods)] for row in one.methods]
    raw = [[row[0].text, *(cell.sort if cell.sort != "" else None for cell in row[1:])] for row in shown]
    return Table(one.name, "Win rates", "", ["method", *one.methods], raw, ["method", *one.methods], shown)


def pairs(one: Matches) -> Table:
    """Return every pair with what was counted."""
    columns = ["a", "b", "win_rate", "low", "high", "wins", "ties", "losses", "missing", "p_value"]
    rows = [[a, b, found.soft.mean, found.soft.low, found.soft.high, found.wins, found.ties, found.losses,
             found.missing, found.p_value] for (a, b), found in one.rates.items()]  # fmt: skip
    return plain(one.name.replace("win_matrix", "pairs"), "Pairs", "", columns, rows)


def ranking(one: Matches) -> Table:
    """Return the methods by rating, with the chance of beating SFT that the model gives."""
    rows, raw = [], []
    for place, (label, elo) in enumerate(one.ratings.elo.items(), start=1):
        chance = one.ratings.win_chance(label, one.anchor)
        rating = measured(elo.mean, elo.low, elo.high, 0)
        place_shown, chance_shown = Shown(str(place), sort=float(place)), Shown(number(chance, 2), sort=chance)
        rows.append([Shown(label, sort=label), place_shown, rating, chance_shown])
        raw.append([label, place, elo.mean, elo.low, elo.high, chance])
    columns = ["method", "rank", "rating", "rating_low", "rating_high", "chance_to_beat_sft"]
    headings = ["method", "rank", "Elo (Bradley-Terry)", "chance to beat SFT"]
    return Table(one.name.replace("win_matrix", "ratings"), "Ranking", "", columns, raw, headings, rows)


def plot(results: Results) -> Any | None:
    """Every method against every other, a panel a suite."""
    found = matches(results)
    if not found:
        return None
    most = max(len(one.methods) for one in found)
    size = 0.62 if most <= _LARGE else 0.4
    drawn, grid = figure(1.8 + size * most, (1.7 + size * most * 0.8) * len(found), len(found), 1)
    for axes, one in zip(np.atleast_1d(grid).ravel(), found, strict=True):
        _heat(axes, one)
    return drawn


def _rate(one: Matches, row: str, column: str) -> tuple[float, float, float] | None:
    if (row, column) in one.rates:
        soft = one.rates[row, column].soft
        return soft.mean, soft.low, soft.high
    if (column, row) in one.rates:
        soft = one.rates[column, row].soft
        return 1 - soft.mean, 1 - soft.high, 1 - soft.low
    return None


def _cell(one: Matches, row: str, column: str) -> Shown:
    rate = _rate(one, row, column)
    if row == column:
        return Shown(reason="a method against itself")
    return measured(*rate, digits=2) if rate else Shown(reason="no prompt in common")


def _heat(axes: Any, one: Matches) -> None:
    count = len(one.methods)
    rates = np.array([[(_rate(one, a, b) or (np.nan,))[0] for b in one.methods] for a in one.methods])
    colours = LinearSegmentedColormap.from_list("wins", [ORANGE, "#f4f4f4", BLUE]).with_extremes(bad=("#8a939c", 0.15))
    axes.pcolormesh(range(count), range(count), np.ma.masked_invalid(rates), cmap=colours, vmin=_FROM, vmax=_TO)
    axes.invert_yaxis()
    for i, j in zip(*np.nonzero(np.isfinite(rates)), strict=True):
        # Ink of its own: the page's text colour changes with light and dark, that of the cells does not.
        ink = "#fffffe" if abs(rates[i, j] - 0.5) > _PALE else "#000001"
        text = f"{rates[i, j]:.2f}".removeprefix("0")
        axes.text(j, i, text, ha="center", va="center", fontsize=8, color=ink)
    axes.set_xticks(range(count), one.methods, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(count), one.methods)
    for tick, label in zip(axes.get_yticklabels(), one.methods, strict=True):
        tick.set_color(look(label)[0])
    axes.grid(visible=False)
    axes.set_xlabel(f"against; the share of prompts that the row's method wins, by {one.judged_by}")
