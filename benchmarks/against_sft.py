"""What a judge compares in a run, completions beside SFT's of the same prompt, and what those were trained on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from alignarena.core.errors import BadInput
from alignarena.core.lineage import compared_model, under_every_name
from alignarena.core.text import prompt_text
from alignarena.evaluators.judges.pairs import Pair
from alignarena.results.cells import Cell
from alignarena.results.folders import BASELINE
from alignarena.results.store import RunFolder

Row = Mapping[str, Any]


def compared(folder: RunFolder) -> list[tuple[str, int]]:
    """Return (method, seed) of every finished cell whose seed has SFT's completions too, but for SFT's own.

    Raises:
        BadInput: There is none.
    """
    done = [cell for cell in folder.cells() if folder.state(*cell) == "DONE"]
    found = [(method, seed) for method, seed in done if method != BASELINE and (BASELINE, seed) in done]
    if not found:
        raise BadInput(f"{folder.path}: a judge compares with SFT's completions; run {BASELINE} and another method")
    return found


def paired(own: Iterable[Row], baseline: Iterable[Row]) -> list[tuple[Row, Pair]]:
    """Return rows with their pairs: a is the completion, b SFT's of the same prompt and sample; rows without b go."""
    theirs = {(row["prompt_id"], row["sample"]): row["completion"] for row in baseline}
    return [(row, Pair(prompt_text(row["prompt"]), row["completion"], theirs[row["prompt_id"], row["sample"]]))
            for row in own if (row["prompt_id"], row["sample"]) in theirs]  # fmt: skip


def no_completions(folder: RunFolder) -> BadInput:
    """Return the error that a run holds nothing to judge or score."""
    return BadInput(
        f"{folder.path}: no completions are stored here (trimmed results); judge or score the run they are from"
    )


def feedback(folder: RunFolder, cell: Cell) -> frozenset[str]:
    """Return the roots of what a stored cell was trained on, the suite's own model under every name it goes by."""
    model_digest = str((folder.provenance.get("model") or {}).get("digest", ""))
    return under_every_name(cell.lineage, compared_model(folder.suite), model_digest)
