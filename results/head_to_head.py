"""Every method of a run against every other, prompt by prompt: the judgments that ratings are made of."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from alignarena.results.frame import Results

_SAME = 1e-9  # values so near each other tie


def judgments(results: Results, metric: str = "gold") -> pd.DataFrame:
    """Compare all methods of one run on the completions of the same prompts; the larger value wins.

    Args:
        results: Of one suite: only its methods answered the same prompts.
        metric: A scored metric.

    Returns:
        Columns ``a, b, seed, prompt_id, sample, cluster, probability`` (1, .5 or 0 that a wins).
    """
    keys = ["seed", "prompt_id", "sample"]
    scored = results.frame[(results.frame["metric"] == metric) & results.frame["value"].notna()]
    methods = [label for label in results.methods if label in set(scored["method"])]
    parts = [pd.DataFrame(columns=["a", "b", *keys, "cluster", "probability"])]
    tables = {label: scored.loc[scored["method"] == label, [*keys, "cluster", "value"]] for label in methods}
    for a, b in combinations(methods, 2):
        pair = tables[a].merge(tables[b].drop(columns="cluster"), on=keys, suffixes=("", "_other"))
        gap = pair["value"] - pair["value_other"]
        won = np.where(gap.abs() < _SAME, 0.5, (gap > 0).astype(float))
        parts.append(pair[[*keys, "cluster"]].assign(a=a, b=b, probability=won))
    return pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)
