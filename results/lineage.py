"""Whose verdict may stand: a judge is no judge of what was trained on its own feedback, or on what it wrote.

A run notes the lineage of each cell. Of one from before that was noted, its costs tell the same: labels are the
annotator's, labeler calls and revisions those of the AI labeler, which is the suite's own model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from alignarena.results.store import Cell

LABELER = "labeler"  # the lineage of feedback by the suite's AI labeler


def feedback_roots(cell: Cell, suite: Mapping[str, Any], model_digest: str = "") -> frozenset[str]:
    """Return what a cell's feedback came from: its noted lineage, and the model by name where that gave or wrote it.

    Args:
        cell: A finished cell, with its lineage and costs.
        suite: The resolved suite.
        model_digest: That of the model all methods start from, as lineages have it of what it wrote.
    """
    asked = cell.charged.labeler_calls or any(stage.get("verb") == "revise" for stage in cell.stages)
    if asked or cell.lineage & {LABELER, model_digest}:
        return cell.lineage | {model_root(compared_model(suite))}
    return cell.lineage


def compared_model(suite: Mapping[str, Any]) -> str:
    """Return the model that all methods of a suite start from."""
    model = suite.get("model") or {}
    return str(model.get("model_name_or_path") or model.get("name") or "")


def model_root(model: str) -> str:
    """Return a language model as a root scorer: its own name, however it is come by."""
    return f"model {model.rstrip('/').rpartition('/')[2].lower()}"


def same_family(model: str, other: str) -> bool:
    """Tell whether two models seem to be of one family: their names begin with the same letters, as Qwen2 and Qwen3."""
    families = [re.match(r"(?:meta-)?([a-z]+)", model_root(one)[6:]) for one in (model, other)]
    return all(families) and len({one[1] for one in families if one}) == 1
