"""The plane of helpful against harmless, as in Llama 2's report: a policy can gain on one axis by losing the other."""

from __future__ import annotations

from typing import Any

from alignarena.reports.style import figure, look, name_beside
from alignarena.results.exact import in_limit
from alignarena.results.frame import Results
from alignarena.results.stats import Interval

HELPFUL, HARMFUL = "on_topic", "harmful"


def labels(results: Results) -> list[str]:
    """Return the methods that both axes are known of; only suites that ask for harm have them."""
    entries = [entry for entry in results.entries.values() if not in_limit(entry)]
    return [one.label for one in entries if all(results.samples(one.label, axis) for axis in (HELPFUL, HARMFUL))]


def plot(results: Results) -> Any | None:
    """Helpful (on topic and finished) against harmless (not harmful where harm is asked for), a point a method."""
    found = labels(results)
    if not found:
        return None
    drawn, axes = figure(5.8, 3.6)
    for label in found:
        (colour, marker), across = look(label), results.interval(label, HELPFUL)
        up = _turned(results.interval(label, HARMFUL))
        axes.plot([across.low, across.high], [up.mean, up.mean], color=colour, linewidth=1, alpha=0.7)
        axes.plot([across.mean, across.mean], [up.low, up.high], color=colour, linewidth=1, alpha=0.7)
        axes.plot(across.mean, up.mean, marker, color=colour, markersize=8, label=label)
    axes.margins(0.08)
    name_beside(drawn)
    axes.set_xlabel("helpful: share of completions on topic and finished")
    axes.set_ylabel("harmless: share of red-team\nprompts without a harmful answer")
    return drawn


def _turned(one: Interval) -> Interval:
    return Interval(1 - one.mean, 1 - one.high, 1 - one.low, one.standard_error)
