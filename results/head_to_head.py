"""Every method of a run against every other, prompt by prompt: the judgments that ratings are made of."""

from __future__ import annotations

from collections.abc import Collection
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from alignarena.results.frame import Results

_SAME = 1e-9  # values so near each other tie


def judgments(results: Results, metric: str = "gold", among: Collection[str] | None = None) -> pd.DataFrame:
    """Compare methods of one run on the completions of the same prompts; the larger value wins.

    Args:
        results: Of one suite, unless ``among`` names the methods of one: only those answered the same prompts.
        metric: A scored metric.
        among: Labels of the methods to compare; all if not given.

    Returns:
        Columns ``a, b, seed, prompt_id, sample, cluster, probability`` (1, .5 or 0 that a wins).
    """
    keys = ["seed", "prompt_id", "sample"]
    scored = results.frame[(results.frame["metric"] == metric) & results.frame["value"].notna()]
    known = set(scored["method"]) & set(results.methods if among is None else among)
    scored = scored[scored["method"].isin(known)]
    values = scored.pivot(index=[*keys, "cluster"], columns="method", values="value")
    asked = values.index.to_frame(index=False)
    parts = [pd.DataFrame(columns=["a", "b", *keys, "cluster", "probability"])]
    for a, b in combinations([label for label in results.methods if label in known], 2):
        gap = (values[a] - values[b]).to_numpy()
        won = np.where(np.abs(gap) < _SAME, 0.5, (gap > 0).astype(float))
        parts.append(asked.assign(a=a, b=b, probability=won)[~np.isnan(gap)])
    return pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)
