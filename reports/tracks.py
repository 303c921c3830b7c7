"""The leaderboard by track: what is told in words what is wanted is no rival of what must learn it from comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from alignarena.reports.table import Table
from alignarena.reports.tables import Column, leaderboard
from alignarena.results.frame import Results
from alignarena.results.leaderboard import INFORMED, PREFERENCE_ONLY


@dataclass(frozen=True)
class Track:
    """One table of the leaderboard, and why it stands apart; both empty where all methods are in one track."""

    title: str
    about: str
    board: Table


def tracks(results: Results, columns: Sequence[Column] | None = None) -> list[Track]:
    """Return the leaderboard's tables: one, or one a track, each with the SFT rows that its methods start from."""
    told = {entry.label for entry in results.entries.values() if entry.informed}
    if not told:
        return [Track("", "", leaderboard(results, columns))]
    starts = {entry.label for entry in results.entries.values() if entry.is_baseline}
    apart = leaderboard(results, columns, PREFERENCE_ONLY, results.entries.keys() - told)
    informed = leaderboard(results, columns, INFORMED, told | starts)
    return [
        Track("Preference-only", "Told nothing in words: what is wanted is learnt from comparisons, if at all.", apart),
        Track(
            "Instruction-informed",
            "Told in words besides: a goal, a grade, an AI labeler's prompt, principles. Comparisons do not "
            "give that information, so these methods are compared with SFT and with each other, not with those above.",
            informed,
        ),
    ]
