"""One line of ``bench.json``: a ratio, its spread, and whether the two sides gave the same results."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

BARS: dict[str, float] = {
    "dpo_live": 5.0,
    "dpo_precomputed": 3.5,
    "reward_model_4wise": 4.0,
    "sft": 2.0,
    "rollouts_n4": 3.0,
    "online_update": 2.5,
    "dpo_peak_memory": 0.5,  # our share of TRL's: at most
    "mfu": 0.5,
}
AT_MOST = frozenset({"dpo_peak_memory"})


@dataclass(frozen=True)
class Equality:
    """How far two sides' results are apart, and how far they may be."""

    what: str
    worst: float
    tolerance: float

    @property
    def met(self) -> bool:
        """Tell whether they count as equal; what is not a number does not."""
        return self.worst <= self.tolerance


@dataclass(frozen=True)
class Entry:
    """One comparison. ``ratio`` is how many times better our side is, or our share where ``name`` is a share."""

    name: str
    opponent: str
    ratio: float  # median over repeats
    ratio_low: float  # least and greatest of the repeats
    ratio_high: float
    ours: float
    theirs: float
    unit: str
    work: str
    repeats: int
    equality: tuple[Equality, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)  # seconds, settings, counts

    @property
    def bar(self) -> float:
        """What the ratio should reach, or stay below."""
        return BARS[self.name]

    @property
    def met(self) -> bool:
        """Tell whether it does."""
        return self.ratio <= self.bar if self.name in AT_MOST else self.ratio >= self.bar

    @property
    def equal(self) -> bool:
        """Tell whether every check of equality held."""
        return all(one.met for one in self.equality)

    @property
    def key(self) -> tuple[str, str]:
        """What tells entries of one file apart."""
        return self.name, self.work

    def record(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        equality = [{**asdict(one), "met": one.met} for one in self.equality]
        derived = {"bar": self.bar, "met": self.met, "equal": self.equal, "equality": equality}
        return {**asdict(self), **derived, "details": dict(self.details)}


def of_seconds(
    ours: Sequence[float], theirs: Sequence[float], *, name: str, opponent: str, work: str, unit: str, amount: float,
    equality: Sequence[Equality] = (), **details: Any,
) -> Entry:  # fmt: skip
    """Return the entry of paired repeats.

    Args:
        ours: Seconds of each of our repeats.
        theirs: Seconds of theirs, in the same order.
        name: Of the comparison, a key of ``BARS``.
        opponent: Whom it is with.
        work: What both computed.
        unit: Of the two rates.
        amount: Units of work of all repeats together; repeats may differ in size.
        equality: Checks made in the same run.
        **details: Further fields.
    """
    ratios = [theirs_one / ours_one for ours_one, theirs_one in zip(ours, theirs, strict=True)]
    return Entry(
        name=name,
        opponent=opponent,
        ratio=statistics.median(ratios),
        ratio_low=min(ratios),
        ratio_high=max(ratios),
        ours=amount / sum(ours),
        theirs=amount / sum(theirs),
        unit=unit,
        work=work,
        repeats=len(ratios),
        equality=tuple(equality),
        details={"our_seconds": list(ours), "their_seconds": list(theirs), **details},
    )


def relative(what: str, ours: Sequence[float], theirs: Sequence[float], tolerance: float) -> Equality:
    """Compare two series of numbers, each difference relative to theirs."""
    return Equality(what, _worst(ours, theirs, lambda one: max(abs(one), 1e-12)), tolerance)


def absolute(what: str, ours: Sequence[float], theirs: Sequence[float], tolerance: float) -> Equality:
    """Compare two series of numbers by their differences."""
    return Equality(what, _worst(ours, theirs, lambda one: 1.0), tolerance)


def _worst(ours: Sequence[float], theirs: Sequence[float], scale: Any) -> float:
    if len(ours) != len(theirs) or not ours:
        return math.inf
    gaps = [abs(one - other) / scale(other) for one, other in zip(ours, theirs, strict=True)]
    return math.inf if any(math.isnan(gap) for gap in gaps) else max(gaps)
