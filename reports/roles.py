"""What each evaluator may be used for: a diagnostic explains a result, but is no independent judge of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from alignarena.results.store import RunFolder

# Unless provenance.json says it under "evaluators": {name: {"role", "note"}}.
_ROLES = {
    "gold": ("diagnostic", "the hidden reward of a simulation: it made the feedback that methods were trained on"),
    "exact": ("diagnostic", "the hidden reward and the distances to the optimum, summed over every completion"),
    "second_opinion": ("independent", "a scorer that no feedback came from"),
    "proxy": ("diagnostic", "the reward model that methods were trained on"),
    "win_rate": ("", "against SFT's completion of the same prompt and sample, ties half"),
    "kl": ("diagnostic", "distance to SFT on the policy's own samples"),
    "behaviour": ("diagnostic", "counted from the completions"),
    "heldout": ("diagnostic", "held-out human pairs"),
}


def roles(evaluators: Iterable[str], folders: Sequence[RunFolder]) -> list[tuple[str, str, str]]:
    """Return each evaluator with its role (empty if none is stated) and a note on what it is."""
    noted: dict[str, Any] = {}
    for folder in folders:
        noted |= folder.provenance.get("evaluators") or {}
    found = []
    for evaluator in evaluators:
        role, note = _ROLES.get(evaluator, ("", ""))
        own = noted.get(evaluator) or {}
        found.append((str(evaluator), str(own.get("role", role)), str(own.get("note", note))))
    return found
