"""Which section of the page a suite's own table stands in, and what is known of its labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from alignarena.reports.table import Table
from alignarena.results.store import RunFolder

_OF_JUDGES = ("labeler", "reward_model", "scorer", "reward_checks", "judge", "people")  # how their names begin
_OF_BEHAVIOUR = ("behaviour", "alignment_tax")
_ANNOTATORS = {
    "simulated": "simulated: ranks samples by a hidden score",
    "human": "people, as recorded in the data",
    "exact": "exact: probabilities without end",
}


def by_section(extra: Sequence[Table]) -> dict[str, list[Table]]:
    """Return the tables that suites added by the section they stand in: judges, behaviour, or leaderboard."""
    found: dict[str, list[Table]] = {"judges": [], "behaviour": [], "leaderboard": []}
    for table in extra:
        name = table.name.rpartition("-")[2]  # behind the run's name, where there are several
        judges, behaviour = name.startswith(_OF_JUDGES), name.startswith(_OF_BEHAVIOUR)
        found["judges" if judges else "behaviour" if behaviour else "leaderboard"].append(table)
    return found


def labels(folder: RunFolder) -> list[tuple[str, str]]:
    """Return how the labels of a run were made: who gave them, how noisy, and how many samples were ranked."""
    feedback: Mapping[str, Any] = folder.suite.get("feedback") or {}
    if not feedback:
        return []
    annotator = str(feedback.get("annotator", ""))
    facts = [("labels from", _ANNOTATORS.get(annotator, annotator))]
    if annotator == "simulated":
        facts.append(("hidden score", str(feedback.get("scorer", ""))))
        noise = float(feedback.get("noise") or 0)
        drawn = f"Gumbel, scale {noise:g}: scores so far apart are ordered rightly 73 times in 100"
        facts.append(("noise", drawn if noise else "none"))
        facts.append(("ranked for each prompt", f"{feedback.get('n')} samples of SFT"))
    return facts
