"""Tables that only all cells together can give, from what is stored of them: no model is asked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from alignarena.benchmarks.scorer_table import bins_table, scorer_table
from alignarena.core.lineage import WITHHELD
from alignarena.evaluators.capability import PREFIX
from alignarena.evaluators.diversity import correlation, distinct
from alignarena.results.cells import Cell, tidy
from alignarena.results.frame import BASELINE, Results
from alignarena.results.scored_pairs import UNALIGNED, scored_pairs
from alignarena.results.store import RunFolder


def write_measured(folder: RunFolder) -> None:
    """Write the tables of a folder's finished cells, and note which of them the AI judge may not judge."""
    cells = [folder.read_cell(*cell) for cell in folder.cells() if folder.state(*cell) == "DONE"]
    pairs = scored_pairs(tidy(folder.name, [cell for cell in cells if cell.method not in UNALIGNED]))
    tables = {
        "scorers": scorer_table(pairs),
        "scorer_bins": bins_table(pairs),
        "behaviour": behaviour_table(cells),
        "alignment_tax": tax_table(folder, cells),
    }
    for name, table in tables.items():
        if table is not None:
            folder.write_json(f"extra/{name}.json", table)
    _note_withheld(folder, cells)


def values_of(cell: Cell, metric: str) -> dict[tuple[str, int], float]:
    """Return a metric of a cell by prompt and sample, where it is known."""
    return {(str(row["prompt_id"]), int(row["sample"])): float(row["value"])
            for row in cell.scores if row["metric"] == metric and row["value"] is not None}  # fmt: skip


def behaviour_table(cells: Sequence[Cell]) -> dict[str, Any] | None:
    """Return what only many completions of a method can show; ``None`` where behaviour was not scored."""
    rows = [_behaviour(cell) for cell in cells if values_of(cell, "length")]
    return {
        "title": "Variety, and what length buys",
        "caption": "Distinct n-grams over all n-grams of a method's completions together; self-BLEU between its "
        "answers to one prompt (lower is more various); correlation of length in tokens with gold and with the "
        "reward model that methods optimised. Diagnostic.",
        "columns": ["method", "seed", "distinct 1", "distinct 2", "self-BLEU", "length and gold", "length and proxy"],
        "rows": rows,
    } if rows else None  # fmt: skip


def tax_table(folder: RunFolder, cells: Sequence[Cell]) -> dict[str, Any] | None:
    """Return the change to SFT on tasks that no training touched; ``None`` where none was asked."""
    if not any(str(row["metric"]).startswith(PREFIX) for cell in cells for row in cell.scores):
        return None
    results = Results([folder])
    rows = []
    for metric in [one for one in results.metrics if one.startswith(PREFIX)]:
        for label, entry in results.entries.items():
            mean = results.interval(label, metric).mean
            if math.isnan(mean):
                continue
            row: list[Any] = [label, metric.removeprefix(PREFIX), mean, None, None, None]
            if not entry.is_baseline and results.comparable(label, entry.baseline, metric):
                found = results.compare(label, entry.baseline, metric)
                row[3:] = [found.difference, found.low, found.high]
            rows.append(row)
    return {
        "title": "Alignment tax",
        "caption": f"Share of small multiple-choice questions answered right, and the paired difference to {BASELINE} "
        "with its 95 % interval: below 0 is what training cost elsewhere. A policy without log-probs is not asked.",
        "columns": ["method", "task", "accuracy", "difference", "low", "high"],
        "rows": rows,
    } if rows else None  # fmt: skip


def _behaviour(cell: Cell) -> list[Any]:
    texts = [row["completion"] for row in cell.completions]
    bleu, lengths = values_of(cell, "self_bleu"), values_of(cell, "length")
    correlations = [_with_length(lengths, values_of(cell, metric)) for metric in ("gold", "proxy_reward")]
    mean = sum(bleu.values()) / len(bleu) if bleu else math.nan
    found = [distinct(texts, 1), distinct(texts, 2), mean, *correlations]
    return [cell.method, cell.seed, *(None if math.isnan(value) else round(value, 4) for value in found)]


def _with_length(lengths: Mapping[Any, float], rewards: Mapping[Any, float]) -> float:
    known = sorted(lengths.keys() & rewards.keys())
    return correlation([lengths[key] for key in known], [rewards[key] for key in known])


def _note_withheld(folder: RunFolder, cells: Sequence[Cell]) -> None:
    asked = {f"{cell.method}/{cell.seed}": [row["value"] for row in cell.scores if row["metric"] == "ai_judge"]
             for cell in cells}  # fmt: skip
    without = {name: WITHHELD for name, values in asked.items() if values and all(one is None for one in values)}
    known = folder.provenance
    cards = known.get("evaluators") or {}
    if "ai_judge" in cards:
        card = {**cards["ai_judge"], "withheld": without}
        folder.write_json("provenance.json", {**known, "evaluators": {**cards, "ai_judge": card}})
