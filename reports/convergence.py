"""Whether a run was still improving, in words."""

from __future__ import annotations

from alignarena.reports.table import number
from alignarena.results.convergence import LEVEL, Rise
from alignarena.results.frame import Entry

_LEAST_P = 0.001


def how_it_ended(entry: Entry) -> str:
    """Return what the training reward did at the end; nothing where a method has no such curve, or a short one."""
    rise = entry.rise
    if rise is None:
        return ""
    moved = _moved(rise)
    if rise.goes_on:
        return f"the training reward still rose: {moved}, {_p(rise)}"
    why = "too little to matter" if rise.p_value <= LEVEL else "not to be told from noise"
    return f"the training reward has stopped rising as far as the curve can tell: {moved}, {_p(rise)}, {why}"


def _moved(rise: Rise) -> str:
    if rise.rise <= 0:
        return f"{number(rise.rise, 3)} over the last {rise.fitted} of {rise.points} points"
    share = f"{100 * rise.share:.0f} % of its whole rise"
    return f"+{number(rise.rise, 3)} ({share}) over the last {rise.fitted} of {rise.points} points"


def _p(rise: Rise) -> str:
    return f"p = {rise.p_value:.2g}" if rise.p_value >= _LEAST_P else f"p < {_LEAST_P}"
