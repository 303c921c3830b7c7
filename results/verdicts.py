"""Every method against its SFT row: better or worse, and whether it is at least not worse by more than a margin.

The family of each question is all methods of the table (Holm, 1979): asked thirty times at 5 %, "better" would come out
by chance alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from alignarena.results import stats
from alignarena.results.exact import in_limit

if TYPE_CHECKING:
    from alignarena.results.comparison import Comparison
    from alignarena.results.frame import Entry, Results

ALPHA = 1 - stats.LEVEL
NOT_WORSE = "not worse"
_ENDED = ("DONE", "not converged")


def against_baseline(results: Results) -> dict[str, Comparison]:
    """Compare every method that may get a verdict with its SFT row, on the primary metric; none in the limit."""
    found = {}
    for entry in results.entries.values():
        metric, baseline = results.primary_metric(entry.label), results.entries.get(entry.baseline)
        if metric is None or entry.is_baseline or baseline is None or in_limit(entry):
            continue
        if results.comparable(entry.label, baseline.label, metric):
            found[entry.label] = results.compare(entry.label, baseline.label, metric)
    return found


def outcomes(comparisons: Mapping[str, Comparison]) -> dict[str, stats.Outcome]:
    """Return what the numbers say of each method: the interval excludes 0 and Holm's test agrees, or cannot tell."""
    adjusted = stats.holm([comparison.p_value for comparison in comparisons.values()])
    return {
        label: comparison.verdict.outcome if p_value <= ALPHA else "cannot tell"
        for (label, comparison), p_value in zip(comparisons.items(), adjusted, strict=True)
    }


def not_worse(results: Results, comparisons: Mapping[str, Comparison]) -> dict[str, str]:
    """Return for each method ``not worse``, ``worse`` or ``cannot tell``: the test of non-inferiority to SFT.

    Not worse: the 95 % interval of the difference lies above minus the margin, and the one-sided paired test at 2.5 %
    agrees, by Holm over all methods. Worse: that is not shown, but a loss is.
    """
    margins = {label: margin_of(results.entry(label)) for label in comparisons}
    p_values = [
        stats.not_worse_p(results.differences(one.a, one.b, one.metric), margins[label])
        for label, one in comparisons.items()
    ]
    worse = [label for label, outcome in outcomes(comparisons).items() if outcome == "worse"]
    found = {}
    for (label, one), p_value in zip(comparisons.items(), stats.holm(p_values), strict=True):
        shown = one.low > -margins[label] and p_value <= ALPHA / 2
        found[label] = NOT_WORSE if shown else "worse" if label in worse else "cannot tell"
    return found


def margin_of(entry: Entry) -> float:
    """Return the loss that counts as none in a method's suite, in units of the primary metric."""
    return float((entry.folder.suite.get("evaluation") or {}).get("margin", stats.MARGIN))


def without_verdict(entry: Entry, baseline: Entry | None, question: Mapping[str, str]) -> str | None:
    """Return what stands in a method's row instead of a verdict against its SFT row; None where there is one."""
    if entry.is_baseline:
        return "baseline"
    if entry.status not in _ENDED:
        return f"no verdict ({entry.status})"
    if in_limit(entry):
        return "no verdict (correctness, not a ranking)"
    if baseline is None or entry.label not in question:
        return "no verdict (not scored)"
    return None if baseline.status in _ENDED else f"no verdict ({baseline.label} {baseline.status})"
