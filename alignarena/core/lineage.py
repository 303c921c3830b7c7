"""The root scorers behind some feedback: whoever gave it may not judge what was trained on it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from alignarena.core.contract import PreferenceStream


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


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, list | tuple):
        yield from value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type) and not hasattr(value, "digest"):
        yield from (getattr(value, field.name) for field in dataclasses.fields(value))
