"""Two methods of a run side by side: their paired difference, its test, and what it says."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from alignarena.results.stats import Verdict


@dataclass(frozen=True)
class Comparison:
    """The paired difference of two methods, a - b, with its interval, test and verdict on a."""

    a: str
    b: str
    metric: str
    difference: float
    low: float
    high: float
    p_value: float
    test: str
    verdict: Verdict
    smallest_p: float  # that a sign-flip test of so few units could give
    prompts: int  # compared, over all seeds
    withheld: str = ""  # why there is no verdict, whatever the numbers say

    @property
    def unit(self) -> str:
        """What the claim is about: ``checkpoint, 1 seed`` or ``method, n seeds``."""
        return self.verdict.unit

    @property
    def minimum_detectable_difference(self) -> float:
        """The difference found with 80 % power at the 5 % level."""
        return self.verdict.minimum_detectable_difference

    @property
    def winner(self) -> str:
        """The verdict in one phrase: ``A better``, ``B better``, ``cannot tell`` or ``no verdict`` and why."""
        if self.withheld:
            return f"no verdict ({self.withheld})"
        names = {"better": f"{self.a} better", "worse": f"{self.b} better", "cannot tell": "cannot tell"}
        return names[self.verdict.outcome]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        outcome = "no verdict" if self.withheld else self.verdict.outcome
        return {**asdict(self), **asdict(self.verdict), "outcome": outcome, "verdict": self.winner}
