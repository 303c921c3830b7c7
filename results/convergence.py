"""Was a run still improving when it stopped? Asked of the training reward, by one rule whatever the method.

The last third of the reward curve (of a short one at most the half) is fitted by a line. The reward goes on rising
where that line rises for certain (one-sided t-test at 1 %, its error widened where neighbouring points go together) and
by enough to matter: a tenth of what the reward has risen by since the start. A curve too short or too noisy to tell is
not flagged.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

REWARDS = ("objective/scores", "reward")  # what losses of this package, and TRL's trainers, call the training reward
LEVEL = 0.01  # chance of flagging a flat curve
LEAST_SHARE = 0.1  # of the whole rise; less than that at the end would hardly change a ranking
FEWEST_POINTS = 10
_FEWEST_FITTED = 8  # or half the points of a curve that has not twice as many


@dataclass(frozen=True)
class Rise:
    """How the training reward moved at the end."""

    points: int  # of the whole curve
    fitted: int  # of them at the end, to which the line was fitted
    rise: float  # from the first to the last point of the fitted line, in units of the reward
    share: float  # of the rise since the start; 1 where the reward had not risen before
    p_value: float  # one-sided, of a line that does not rise

    @property
    def goes_on(self) -> bool:
        """Whether the run was still improving."""
        return self.p_value <= LEVEL and self.share >= LEAST_SHARE


def last_rise(metrics: Iterable[Mapping[str, Any]]) -> Rise | None:
    """Return how the training reward ended; None where a run has no such curve, or one of too few points.

    Args:
        metrics: The lines of metrics.jsonl, as a cell writes them.
    """
    curve = reward_curve(metrics)
    return rise_of(curve) if len(curve) >= FEWEST_POINTS else None


def reward_curve(metrics: Iterable[Mapping[str, Any]]) -> list[float]:
    """Return the training reward of a cell's last fit, a point each time that samples were scored.

    Earlier fits are stages on the way: how they ended says nothing of how the run did.
    """
    rows = [row for row in metrics if "fit" in row]
    last = max((row["fit"] for row in rows), default=0)
    rows = [row for row in rows if row["fit"] == last]
    name = next((name for name in REWARDS if any(name in row for row in rows)), None)
    seen = [(row.get("phase"), row[name]) for row in rows if name in row] if name else []
    # every step of a phase repeats the score of its samples
    points = seen[:1] + [point for before, point in pairwise(seen) if point != before]
    return [float(score) for _, score in points if score is not None and math.isfinite(score)]


def rise_of(curve: Sequence[float]) -> Rise:
    """Fit a line to the last third of a curve of at least ``FEWEST_POINTS`` and test whether it rises."""
    from scipy import stats  # half a second, which who only opens a run folder need not wait

    values = np.asarray(curve, dtype=float)
    fitted = max(len(values) // 3, min(len(values) // 2, _FEWEST_FITTED))
    tail = values[-fitted:]
    places = np.arange(len(tail)) - (len(tail) - 1) / 2
    slope = float(places @ tail / (places @ places))
    residuals = tail - tail.mean() - slope * places
    free = len(tail) - 2
    variance = float(residuals @ residuals) / free * _together(residuals)
    error = math.sqrt(variance / float(places @ places))
    p_value = float(stats.t.sf(slope / error, free)) if error > 0 else float(slope <= 0)
    rise = slope * (len(tail) - 1)
    whole = max(rise, float(tail.mean()) + rise / 2 - float(values[0]))
    return Rise(len(values), fitted, rise, rise / whole if rise > 0 else 0.0, p_value)


def _together(residuals: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    """Return what neighbours that go together multiply the variance of a mean by: (1 + r) / (1 - r), 1 at least."""
    total = float(residuals @ residuals)
    if total == 0:
        return 1.0
    r = min(max(float(residuals[1:] @ residuals[:-1]) / total, 0.0), 0.9)
    return (1 + r) / (1 - r)
