"""How well each scorer orders completions of the aligned policies, whose gold is known, as tables of the report."""

from __future__ import annotations

from typing import Any

import numpy as np

from alignarena.results.resampling import Floats
from alignarena.results.reward_quality import STRENGTHS, by_bin, calibration, temperature
from alignarena.results.scored_pairs import AI_JUDGE, HELD_OUT, TRAINING, ScoredPairs

_LENGTH = "length"
_NAMES = {TRAINING: "reward model that methods optimised", HELD_OUT: "reward model held out from training",
          AI_JUDGE: "AI judge", _LENGTH: "the longer one wins"}  # fmt: skip
_LENGTHS = (-5.0, 0.0, 5.0)  # tokens by which the better one is longer


def scorer_table(pairs: ScoredPairs) -> dict[str, Any] | None:
    """Return accuracy, calibration and shared errors of each scorer; ``None`` without a reward model or gold."""
    rows = [[_NAMES[name], *_quality(pairs, name)] for name in pairs.differences]
    return {
        "title": "Scorers on the aligned policies' own answers",
        "caption": "Share of pairs of two methods' answers to a prompt ordered as gold orders them, ties half, 95 % "
        "interval over clusters. Log loss (nats; not knowing is .693), Brier score and calibration error after one "
        "temperature fitted to these pairs. Error correlation with the reward model that methods optimised: 0 errs "
        "elsewhere, 1 alike. Gold made the labels of both reward models. Diagnostic.",
        "columns": ["scorer", "pairs", "accuracy", "low", "high", "log loss", "Brier", "calibration error",
                    "error correlation"],
        "rows": rows,
    } if pairs.differences.keys() - {_LENGTH} else None  # fmt: skip


def bins_table(pairs: ScoredPairs) -> dict[str, Any] | None:
    """Return each scorer's accuracy by how much better, and how much longer, the better one is."""
    if not pairs.differences.keys() - {_LENGTH}:
        return None
    longer = pairs.differences.get(_LENGTH)
    rows = _binned(pairs, "gold", pairs.gold, STRENGTHS)
    rows += _binned(pairs, "length", longer, _LENGTHS) if longer is not None else []
    return {
        "title": "Scorers by strength and length",
        "caption": "Accuracy on the same pairs, by gold of the better answer less that of the other, and by the tokens "
        "that it is longer. The number of pairs is that of the first scorer. Diagnostic.",
        "columns": ["difference", "pairs", *(_NAMES[name] for name in pairs.differences)],
        "rows": rows,
    }


def _binned(pairs: ScoredPairs, what: str, values: Floats, edges: tuple[float, ...]) -> list[list[Any]]:
    columns = []
    for scores in pairs.differences.values():
        known = ~np.isnan(scores) & ~np.isnan(values)
        columns.append(by_bin(scores[known], values[known], edges))
    return [[f"{what} {line[0][0]}", line[0][1], *(round(one[2], 4) for one in line)]
            for line in zip(*columns, strict=True) if line[0][1]]  # fmt: skip


def _quality(pairs: ScoredPairs, name: str) -> list[Any]:
    margins = pairs.differences[name][pairs.known(name)]
    right = pairs.accuracy(name)
    sure = calibration(margins / temperature(margins))
    numbers = [right.mean, right.low, right.high, sure.log_loss, sure.brier, sure.ece, pairs.shared_errors(name)]
    return [len(margins), *(None if np.isnan(value) else round(float(value), 4) for value in numbers)]
