"""The exact laboratory's tables: the full one, and what the page shows of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

from alignarena.reports.table import Shown, Table, is_number, number, plain
from alignarena.reports.tables import NO_NUMBERS
from alignarena.results.exact import exact_summary, exact_table
from alignarena.results.frame import Results

LIMIT_TITLE = "correctness, not a ranking"
EFFICIENCY_BAR = 0.95
ERROR_BAR = 0.05  # of KL(own target || reference)
GAP_BAR = 0.05  # of J efficiency, from trained to held-out prompts
_IS_OPTIMUM = 1e-6  # nats; targets this near to the optimum are the optimum, found in floating point
_FEEDBACK = {"whole": "whole completions", "return": "segments, by return", "regret": "segments, by regret"}
_MEASURES = {
    "reward": "reward",
    "kl": "KL (nats)",
    "j_efficiency": "J efficiency",
    "frontier_efficiency": "frontier efficiency",
    "j_efficiency_target": "of its own target",
    "objective_bias": "objective bias (nats)",
    "learning_error": "learning error (nats)",
    "kl_from_optimum": "KL from optimum (nats)",
}
_IN_LIMIT = {
    "j_efficiency_trained": "J efficiency, trained prompts",
    "j_efficiency": "held out",
    "j_efficiency_target": "of its own target",
    "learning_error_trained": "learning error, trained prompts (nats)",
    "target_kl_trained": "KL of target (nats)",
    "learning_error": "learning error, held out (nats)",
    "objective_bias": "objective bias (nats)",
}

_OF_TARGET = frozenset({"j_efficiency_target", "objective_bias", "learning_error", "learning_error_trained",
                        "target_kl_trained"})  # fmt: skip


@dataclass(frozen=True)
class Laboratory:
    """What the page's section shows."""

    limit: Table | None
    budget: Table | None
    unit: str  # of the intervals, in words


def full(results: Results) -> list[Table]:
    """Return the full table, a row a cell, as the only one; none where nothing was scored exactly."""
    cells = exact_table(results)
    rows = cells.astype(object).where(cells.notna(), None).to_numpy().tolist()
    return [plain("exact", "Exact laboratory", "", list(cells.columns), rows)] if rows else []


def laboratory(results: Results) -> Laboratory | None:
    """Return the section's tables; None where nothing was scored exactly."""
    summary = exact_summary(results)
    if summary.empty:
        return None
    return Laboratory(_limit_table(summary), _budget_table(summary), _unit(summary))


def _limit_table(summary: pd.DataFrame) -> Table | None:
    rows = summary[summary["setting"] == "limit"].to_dict("records")
    segments = any(row["feedback"] != "whole" for row in rows)
    columns = ["feedback", *_IN_LIMIT] if segments else list(_IN_LIMIT)
    headings = ["method", "bar met", *(_IN_LIMIT.get(name, name) for name in columns), "bar"]
    shown = []
    for row in rows:
        bar, met = _bar(row)
        shown.append([_method(row), met, *(_shown(row, name) for name in columns), bar])
    return Table("exact-limit", f"Setting limit: {LIMIT_TITLE}", "", [], [], headings, shown) if rows else None


def _budget_table(summary: pd.DataFrame) -> Table | None:
    rows = summary[summary["setting"] == "budget"].sort_values("labels", kind="stable").to_dict("records")
    segments = any(row["feedback"] != "whole" for row in rows)
    columns = ["labels", *(["feedback"] if segments else []), *_MEASURES]
    headings = ["method", *(_MEASURES.get(name, name) for name in columns)]
    shown = [[_method(row), *(_shown(row, name) for name in columns)] for row in rows]
    return Table("exact-budget", "Setting budget", "", [], [], headings, shown) if rows else None


def _method(row: dict[Any, Any]) -> Shown:
    return Shown(row["method"], sort=row["method"])


def _shown(row: dict[Any, Any], name: str) -> Shown:
    value = row[name]
    if name == "feedback":
        return Shown(_FEEDBACK.get(value, str(value)), sort=str(value))
    if name == "labels" and is_number(value):
        return Shown(number(value, 0 if float(value).is_integer() else 1), sort=value)
    if is_number(value):
        low, high = row[f"{name}_low"], row[f"{name}_high"]
        limits = f"[{number(low, 3)}, {number(high, 3)}]" if is_number(low) and is_number(high) else ""
        return Shown(number(value, 3), limits, value)
    return Shown("\u221e") if value == math.inf else Shown(reason=_reason(row, name))


def _reason(row: dict[Any, Any], name: str) -> str:
    if not is_number(row["reward"]):
        return NO_NUMBERS[0]
    if name == "frontier_efficiency":
        return "at the reference there is nothing to compare with on the frontier"
    return "no target of its own" if name in _OF_TARGET else "not scored"


def _bar(row: dict[Any, Any]) -> list[Shown]:
    """The bar that a correct implementation clears in the limit, and whether it does."""
    if not is_number(row["reward"]):
        return [Shown(reason=NO_NUMBERS[0]), Shown("failed", sort="failed")]
    if row["feedback"] != "whole":
        return [Shown(reason="bars are for whole completions")] * 2
    if math.isnan(row["objective_bias"]):
        return [Shown(reason="no target of its own")] * 2
    if row["objective_bias"] <= _IS_OPTIMUM:
        trained, gap = row["j_efficiency_trained"], row["j_efficiency_trained"] - row["j_efficiency"]
        bar = f"J efficiency \u2265 {EFFICIENCY_BAR}, held out within {GAP_BAR} of it"
        met = trained >= EFFICIENCY_BAR and gap <= GAP_BAR
    else:
        most = ERROR_BAR * row["target_kl_trained"]
        bar = f"learning error \u2264 {ERROR_BAR} \u00d7 KL of target = {number(most, 3)}"
        met = row["learning_error_trained"] <= most
    return [Shown(bar, sort=bar), Shown("met" if met else "missed", sort="met" if met else "missed")]


def _unit(summary: pd.DataFrame) -> str:
    [worlds, seeds] = [int(summary[name].max()) for name in ("worlds", "seeds")]
    means = f"means over {worlds} world{'s' * (worlds > 1)} and {seeds} seed{'s' * (seeds > 1)}"
    if worlds > 1:
        return f"{means}; brackets are 95 % t-intervals with the world as the unit: claims about methods on such worlds"
    if seeds > 1:
        return f"{means}; brackets are 95 % t-intervals over the seeds: claims about the methods in this one world"
    return f"{means}: claims about these checkpoints in this one world, without intervals"
