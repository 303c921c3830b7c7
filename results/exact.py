"""The exact laboratory's results: each policy's distance from the best possible one, where that one is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from alignarena.core.digest import digest
from alignarena.core.errors import BadInput
from alignarena.core.files import read_json
from alignarena.results import stats

if TYPE_CHECKING:
    from alignarena.results.frame import Entry, Results
    from alignarena.results.stats import Interval
    from alignarena.results.store import RunFolder

Setting = Literal["limit", "budget"]
EVALUATOR = "exact"
COLUMNS = [
    *("method", "world", "seed", "setting", "labels", "beta", "reward", "kl", "j_efficiency", "frontier_efficiency"),
    *("objective_bias", "learning_error", "kl_from_optimum", "target_kl", "j_efficiency_trained"),
    *("learning_error_trained", "target_kl_trained", "j_efficiency_target", "feedback"),
]
MEASURES = [
    *("reward", "kl", "j_efficiency", "j_efficiency_trained", "frontier_efficiency"),
    *("objective_bias", "learning_error", "kl_from_optimum", "target_kl"),
    *("learning_error_trained", "target_kl_trained", "j_efficiency_target"),
]
GROUP = ["setting", "labels", "feedback", "method"]
# Divergences are infinite where one side has no mass; scores.jsonl has null for that.
_UNBOUNDED = frozenset({"exact_objective_bias", "exact_learning_error", "exact_kl_from_optimum",
                        "exact_learning_error_trained"})  # fmt: skip
NO_KL = 1e-6  # a policy as near to its reference as this is on no point of the frontier


def setting(folder: RunFolder) -> Setting | None:
    """Return a run's setting: ``limit`` (feedback exact and unlimited) or ``budget``; None outside the laboratory."""
    return _setting(folder.suite)


def in_limit(entry: Entry) -> bool:
    """Whether a method ran in the limit setting, which shows correctness and ranks nothing."""
    return setting(entry.folder) == "limit"


def exact_table(results: Results) -> pd.DataFrame:
    """Return one row a cell of the exact laboratory, with the columns of :data:`COLUMNS`.

    Returns:
        Measures are means over held-out prompts: ``reward`` and ``kl`` (nats); ``j_efficiency``, the share of the way
        from the reference's J = E[gold] - beta KL to the optimum's; ``frontier_efficiency``, the share of the reward
        that the exact frontier has at this KL; ``objective_bias`` = KL(optimum || own target), ``learning_error`` =
        KL(own target || policy), ``kl_from_optimum`` = KL(optimum || policy) and ``target_kl`` = KL(own target ||
        reference), in nats; ``NAME_trained`` is the same on trained prompts, and ``j_efficiency_target`` that of the
        own target: what the method would reach if it learnt perfectly. A divergence may be infinite; what was not
        scored is NaN. ``labels`` are those charged, NaN in the limit. A failed cell is a row without measures, its
        labels those of the method's finished cells in suites that are the same but for the world. Empty where nothing
        was scored exactly.
    """
    means = _means(results.frame)
    entries = [entry for entry in results.entries.values() if means and setting(entry.folder) is not None]
    labels = {_alike(entry): cell.charged.labels for entry in entries for cell in entry.finished}
    rows = []
    for entry in entries:
        for cell in entry.cells.values():
            if (entry.label, cell.seed) in means:
                found = _measures(means[entry.label, cell.seed])
                rows.append(_described(entry, cell.seed, cell.charged.labels) | found)
            elif cell.state == "FAILED":
                rows.append(_described(entry, cell.seed, labels.get(_alike(entry), math.nan)))
    return pd.DataFrame(rows, columns=COLUMNS)


def exact_summary(results: Results) -> pd.DataFrame:
    """Return means over worlds and seeds, one row a (setting, labels, feedback, method).

    Returns:
        The columns of :data:`GROUP`, ``worlds``, ``seeds``, ``unit`` (``world`` where there are several, each the mean
        of its seeds; else ``seed``), and each of :data:`MEASURES` with its 95 % t-interval in ``NAME_low`` and
        ``NAME_high`` (NaN with a single unit). A measure that a cell lacks is NaN for the whole group, as those that
        are left are no fair sample of the method.
    """
    return _summary(results).copy()


@lru_cache(maxsize=2)  # tables and plots ask for the same
def _summary(results: Results) -> pd.DataFrame:
    rows = []
    for key, cells in exact_table(results).groupby(GROUP, sort=False, dropna=False):
        unit = "world" if cells["world"].nunique() > 1 else "seed"
        row = dict(zip(GROUP, key, strict=True))
        row |= {"worlds": cells["world"].nunique(), "seeds": cells["seed"].nunique(), "unit": unit}
        for name in MEASURES:
            found = interval(cells, name)
            row |= {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high}
        rows.append(row)
    limits = [column for name in MEASURES for column in (name, f"{name}_low", f"{name}_high")]
    return pd.DataFrame(rows, columns=[*GROUP, "worlds", "seeds", "unit", *limits])


def interval(cells: pd.DataFrame, measure: str) -> Interval:
    """Return the mean and t-interval of a measure, over worlds where rows come from several, else over seeds.

    Args:
        cells: Rows of :func:`exact_table`, of one method in one setting.
        measure: One of :data:`MEASURES`.
    """
    # The same policy may stand in several runs (SFT at every number of labels): it is still one seed.
    seeds = cells.groupby(["world", "seed"])[measure].apply(_mean)
    worlds = seeds.groupby("world").apply(_mean)
    means = (worlds if len(worlds) > 1 else seeds).to_numpy(dtype=float)
    if len(means) > 1 and np.isfinite(means).all():
        return stats.t_interval(means)
    return stats.Interval(float(means.mean()), math.nan, math.nan, math.nan)


def frontier(folder: RunFolder) -> tuple[list[float], list[float]] | None:
    """Return the exact reward-KL frontier of a run's first seed: KL (nats) and reward; None where none was kept.

    Raises:
        BadInput: The file holds no such curve.
    """
    path = Path(folder.path) / "extra" / "frontier.json"
    curve = read_json(path)
    if curve is None:
        return None
    kl, reward = (curve.get(name) if isinstance(curve, Mapping) else None for name in ("kl", "reward"))
    if not isinstance(kl, list) or not isinstance(reward, list) or len(kl) != len(reward):
        raise BadInput(f"{path}: expected an object with kl and reward, of equal length; run the suite again")
    return kl, reward


def _setting(suite: Mapping[str, Any]) -> Setting | None:
    if (suite.get("data") or {}).get("dataset") != EVALUATOR:
        return None
    return "limit" if (suite.get("feedback") or {}).get("annotator") == "exact" else "budget"


def _means(frame: pd.DataFrame) -> dict[Any, dict[Any, float]]:
    """Means over prompts, by (method, seed) and metric; one prompt without a value and there is no mean."""
    cells = frame[frame["evaluator"] == EVALUATOR].groupby(["method", "seed", "metric"], sort=False)["value"]
    means = cells.mean()
    missing = cells.count() < cells.size()
    means[missing] = math.nan
    means[missing & means.index.get_level_values("metric").isin(_UNBOUNDED)] = math.inf
    table = means.unstack("metric")
    if len(table):
        table.loc[table["gold"].isna()] = math.nan  # a diverged policy has no distances, not infinite ones
    return table.to_dict("index")


def _alike(entry: Entry) -> tuple[str, str]:
    """The method and its suite, whichever the world: a cell that failed early may not have been charged its labels."""
    suite = entry.folder.suite
    data = {**suite["data"], "world": {**(suite["data"].get("world") or {}), "seed": None}}
    return entry.method, digest({**suite, "name": None, "data": data})


def _described(entry: Entry, seed: int, labels: float) -> dict[str, Any]:
    suite = entry.folder.suite
    world = suite["data"].get("world") or {}
    return {
        "method": entry.method,
        "world": world.get("seed", 0),
        "seed": seed,
        "setting": _setting(suite),
        "labels": math.nan if _setting(suite) == "limit" else labels,
        "beta": world.get("beta", math.nan),
        "feedback": world.get("feedback_kind", "whole"),
    }


def _measures(means: Mapping[str, float]) -> dict[str, float]:
    def of(name: str) -> float:
        return means.get(name, math.nan)

    start, kl = of("exact_reference_reward"), of("kl")
    gained = of("gold") - start
    return {
        "reward": of("gold"),
        "kl": kl,
        "j_efficiency": _j_efficiency(of, ""),
        "frontier_efficiency": _share(gained, of("exact_frontier_reward") - start) if kl > NO_KL else math.nan,
        "objective_bias": of("exact_objective_bias"),
        "learning_error": of("exact_learning_error"),
        "kl_from_optimum": of("exact_kl_from_optimum"),
        "target_kl": of("exact_target_kl"),
        "j_efficiency_trained": _j_efficiency(of, "_trained"),
        "learning_error_trained": of("exact_learning_error_trained"),
        "target_kl_trained": of("exact_target_kl_trained"),
        "j_efficiency_target": _j_efficiency(of, "", of_what="_target"),
    }


def _j_efficiency(of: Callable[[str], float], suffix: str, of_what: str = "") -> float:
    start = of(f"exact_objective_reference{suffix}")
    return _share(of(f"exact_objective{of_what}{suffix}") - start, of(f"exact_objective_optimum{suffix}") - start)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _mean(values: pd.Series[float]) -> float:
    return float(values.mean(skipna=False))
