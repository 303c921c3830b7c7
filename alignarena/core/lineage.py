"""The roots of feedback, and whose verdict may stand: no judge of what was trained on its feedback or its texts.

A root is a scorer or labeler by its name, or the model that wrote what was trained on by its digest. The lab notes them
as it computes; here they are found in what it computes with, read back from a stored cell, and set beside a judge's.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

from alignarena.core.contract import PreferenceStream

LABELER = "labeler"  # the root of feedback by a suite's AI labeler, which is the model that all methods start from
WITHHELD = "the judge, or the model behind it, gave or wrote what this method was trained on"


def roots(value: Any) -> frozenset[str]:
    """Return the root scorers of a judge, a scorer or rows, or of all that an experience is made of.

    Rows carry those of their labels in a column ``lineage``. A policy has none of its own: what it was trained on was
    noted when it was trained.
    """
    own = getattr(value, "lineage", None)
    if isinstance(own, frozenset):
        return own
    if isinstance(value, PreferenceStream):
        return roots(value.oracle)
    if hasattr(value, "column_names"):
        labelled = value["lineage"][:] if "lineage" in value.column_names else []
        return frozenset(root for row in labelled for root in row or ())
    return frozenset[str]().union(*map(roots, _parts(value)))


def models(policy: Any) -> frozenset[str]:
    """Return the digests of a policy and of those inside it: who writes what is trained on is a root, too."""
    found = set()
    while policy is not None:
        found.add(str(policy.digest))
        policy = getattr(policy, "policy", None)
    return frozenset(found)


def noted(budget: Mapping[str, Any]) -> frozenset[str]:
    """Return the roots that a cell's budget.json notes.

    Of a cell from before they were noted its costs tell the same: labeler calls and revisions are the AI labeler's.
    """
    known = budget.get("lineage")
    if known is not None:
        return frozenset(known)
    asked = (budget.get("charged") or {}).get("labeler_calls")
    revised = any(stage.get("verb") == "revise" for stage in budget.get("stages") or ())
    return frozenset({LABELER} if asked or revised else ())


def under_every_name(lineage: frozenset[str], model: str, digest: str = "") -> frozenset[str]:
    """Return roots with all names of the model that methods start from, if it is one of them.

    Args:
        lineage: As noted: by its digest where it wrote what was trained on, as labeler where it gave feedback.
        model: Its name, as a judge has it.
        digest: Its digest, where it is known.
    """
    names = {LABELER, model_root(model), *filter(None, [digest])}
    return lineage | names if lineage & names else lineage


def compared_model(suite: Mapping[str, Any]) -> str:
    """Return the model that all methods of a resolved suite start from."""
    model = suite.get("model") or {}
    return str(model.get("model_name_or_path") or model.get("name") or "")


def model_root(model: str) -> str:
    """Return a language model as a root: its own name, however it is come by."""
    return f"model {model.rstrip('/').rpartition('/')[2].lower()}"


def same_family(model: str, other: str) -> bool:
    """Tell whether two models seem to be of one family: their names begin with the same letters, as Qwen2 and Qwen3."""
    families = [re.match(r"(?:meta-)?([a-z]+)", model_root(one)[6:]) for one in (model, other)]
    return all(families) and len({one[1] for one in families if one}) == 1


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, list | tuple):
        yield from value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type) and not hasattr(value, "digest"):
        yield from (getattr(value, field.name) for field in dataclasses.fields(value))
