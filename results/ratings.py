"""Strengths of many methods from pairwise judgments, on the scale of Elo, with intervals over prompts and seeds.

Every prompt weighs the same in a pair, however often it was judged. Online Elo is not here: it depends on the order of
the games.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from alignarena.core.errors import BadInput
from alignarena.results.resampling import Floats, resampled, units_of
from alignarena.results.stats import Interval, crossed_interval, percentile_interval
from alignarena.results.strengths import PRIOR, bradley_terry, davidson, strongly_connected, with_prior
from alignarena.results.win_rates import verdicts

Model = Literal["bradley_terry", "davidson"]

RESAMPLES = 2000
ELO_ANCHOR = 1000.0  # the anchor's own rating, by definition
ELO_SCALE = 400 / math.log(10)  # points a unit of log-strength: 400 points are odds of 10
_FITS = 20_000  # side by side


@dataclass(frozen=True)
class Ratings:
    """What the judgments say of all methods.

    Attributes:
        elo: Rating of each method, best first; the anchor's is 1000 without an interval.
        model: Of the wins.
        ties: Davidson's v, the chance of a tie relative to a win between equals; NaN for Bradley-Terry.
        prior: What was assumed beside the data, in words; "none" where nothing was. Resamples that lack a finite fit
            get the same.
        judgments: With a verdict.
        missing: Judgments without one, or of a method against itself, which count nowhere.
    """

    elo: dict[str, Interval]
    model: Model
    ties: float
    prior: str
    judgments: int
    missing: int

    def win_chance(self, a: str, b: str) -> float:
        """Return p_a / (p_a + p_b): how often a beats b, a tie left out or half a win."""
        return 1 / (1 + math.exp((self.elo[b].mean - self.elo[a].mean) / ELO_SCALE))


def rate(
    judgments: pd.DataFrame, anchor: str, model: Model = "bradley_terry", n: int = RESAMPLES, seed: int = 0
) -> Ratings:
    """Rate the methods that judgments compare.

    Args:
        judgments: Columns ``a, b, prompt_id, probability`` (that a wins; NaN: no verdict), and where there are such
            ``cluster`` (of the prompt) and ``seed``. Davidson's model rounds probabilities to win, tie and loss.
        anchor: The method whose rating is 1000.
        model: ``bradley_terry``, a tie counting half a win of each, or ``davidson``, which has a chance of ties.
        n: Resamples of the prompt clusters; every fit is repeated on each.
        seed: Of the resampling.

    Raises:
        BadInput: No judgment, or none of the anchor.
    """
    known = judgments[judgments["probability"].notna() & (judgments["a"] != judgments["b"])]
    methods = sorted({*known["a"].unique(), *known["b"].unique()})
    if anchor not in methods:
        raise BadInput(f"no judgment of {anchor!r}, which the ratings are relative to; judge it against another method")
    totals = _tally(known, methods, soft=model == "bradley_terry")  # (units, seeds, 3, K, K)
    place, units = methods.index(anchor), len(totals)
    whole = totals.sum(axis=0)
    strengths, evenness, helped = _fit(whole, place, model)
    replicates = np.empty((0, *strengths.shape))
    if units > 1:
        chunk = max(1, _FITS // len(whole))
        drawn = resampled(totals, n, seed)
        replicates = np.concatenate([_fit(drawn[i : i + chunk], place, model)[0] for i in range(0, n, chunk)])
    found = {name: _interval(strengths[:, i], replicates[..., i], units) for i, name in enumerate(methods)}
    elo = {name: found[name] for name in sorted(methods, key=lambda name: -found[name].mean)}
    ties = float(np.exp(evenness).mean()) if model == "davidson" else math.nan
    prior = f"{PRIOR:g} virtual wins and losses of everyone against {anchor}" if helped else "none"
    return Ratings(elo, model, ties, prior, len(known), len(judgments) - len(known))


def _tally(known: pd.DataFrame, methods: Sequence[str], *, soft: bool) -> Floats:
    """Weights of wins, ties and losses (units, seeds, 3, K, K), the first index the lower; a prompt has 1 a pair."""
    count, places = len(methods), pd.Index(methods)
    first, second = (places.get_indexer(pd.Index(known[side])) for side in "ab")
    chances = np.asarray(known["probability"], dtype=float)
    chances = np.where(first < second, chances, 1 - chances)
    pairs = np.minimum(first, second) * count + np.maximum(first, second)
    seeds, names = pd.factorize(known["seed"], sort=True) if "seed" in known else (np.zeros(len(known), int), [0])
    [units], unit_count = units_of([known["cluster" if "cluster" in known else "prompt_id"]])
    prompts = pd.factorize(known["prompt_id"])[0]
    _, same, often = np.unique(
        (prompts * len(names) + seeds) * count**2 + pairs, return_inverse=True, return_counts=True
    )
    weights, cells = 1 / often[same], (units * len(names) + seeds) * count**2 + pairs
    won = chances if soft else (verdicts(chances) == 1).astype(float)
    tied = np.zeros(len(won)) if soft else (verdicts(chances) == 0.5).astype(float)
    shape = unit_count, len(names), count, count
    parts = [np.bincount(cells, weights * one, math.prod(shape)) for one in (won, tied, 1 - won - tied)]
    return np.stack([part.reshape(shape) for part in parts], axis=2)


def _fit(totals: Floats, anchor: int, model: Model) -> tuple[Floats, Floats, bool]:
    """Strengths (..., K) relative to the anchor's, log v (...), and whether any table needed the prior."""
    won, tied, lost = totals[..., 0, :, :], totals[..., 1, :, :], totals[..., 2, :, :]
    wins = won + np.swapaxes(lost, -1, -2)
    connected = strongly_connected(wins)
    wins, evenness = with_prior(wins, anchor, connected), np.full(wins.shape[:-2], np.nan)
    if model == "davidson":
        strengths, evenness = davidson(wins, tied + np.swapaxes(tied, -1, -2))
    else:
        strengths = bradley_terry(wins)
    return strengths - strengths[..., anchor : anchor + 1], evenness, not bool(connected.all())


def _interval(strengths: Floats, replicates: Floats, units: int) -> Interval:
    """The Elo rating of one method by its strengths (seeds,) and those of the resamples (n, seeds)."""
    elo, resamples = ELO_ANCHOR + ELO_SCALE * strengths, ELO_ANCHOR + ELO_SCALE * replicates
    if not len(resamples) and len(elo) == 1:
        return Interval(float(elo[0]), math.nan, math.nan, math.nan)
    if len(elo) == 1:
        return percentile_interval(float(elo[0]), resamples[:, 0], units)
    return crossed_interval(elo, resamples, units)
