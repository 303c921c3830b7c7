"""How well each scorer orders completions of the aligned policies, whose gold is known: where reward models are tested.

A reward model learns from SFT samples and is then asked about what training made of them. A pair is two methods'
answers to one prompt of which gold prefers one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from alignarena.evaluators.reward_quality import (
    STRENGTHS,
    accuracy,
    by_bin,
    calibration,
    error_correlation,
    right,
    temperature,
)
from alignarena.results.stats import bootstrap_interval
from alignarena.results.store import Cell

TRAINING = "proxy_reward"
_NAMES = {TRAINING: "reward model that methods optimised", "heldout_reward": "reward model held out from training",
          "ai_judge": "AI judge", "length": "the longer one wins"}  # fmt: skip
_UNALIGNED = ("base", "sft")
_LENGTHS = (-5.0, 0.0, 5.0)  # tokens by which the better one is longer


@dataclass(frozen=True)
class ScoredPair:
    """What each scorer says of a pair: the score of the better completion less that of the other."""

    cluster: str
    gold: float
    differences: dict[str, float] = field(default_factory=dict)  # of the scorers that know both


def pairs_of(cells: Sequence[Cell]) -> list[ScoredPair]:
    """Return all pairs of aligned policies' answers to one prompt, sample and seed that differ in gold."""
    asked: dict[tuple[int, str, int], list[dict[str, float]]] = {}
    clusters: dict[str, str] = {}
    for cell in cells:
        if cell.method in _UNALIGNED:
            continue
        clusters |= {str(row["prompt_id"]): str(row.get("cluster") or row["prompt_id"]) for row in cell.completions}
        for (prompt_id, sample), scores in _by_answer(cell).items():
            asked.setdefault((cell.seed, prompt_id, sample), []).append(scores)
    return [pair for (_, prompt_id, _), answers in asked.items()
            for pair in _pairs(clusters.get(prompt_id, prompt_id), answers)]  # fmt: skip


def scorer_table(pairs: Sequence[ScoredPair]) -> dict[str, Any] | None:
    """Return accuracy, calibration and shared errors of each scorer; ``None`` without a reward model or gold."""
    known = [name for name in _NAMES if any(name in pair.differences for pair in pairs)]
    rows = [[_NAMES[name], *_quality(pairs, name)] for name in known]
    return {
        "title": "Scorers on the aligned policies' own answers",
        "caption": "Share of pairs of two methods' answers to a prompt ordered as gold orders them, ties half, 95 % "
        "interval over clusters. Log loss (nats; not knowing is .693), Brier score and calibration error after one "
        "temperature fitted to these pairs. Error correlation with the reward model that methods optimised: 0 errs "
        "elsewhere, 1 alike. Gold made the labels of both reward models. Diagnostic.",
        "columns": ["scorer", "pairs", "accuracy", "low", "high", "log loss", "Brier", "calibration error",
                    "error correlation"],
        "rows": rows,
    } if set(known) - {"length"} else None  # fmt: skip


def bins_table(pairs: Sequence[ScoredPair]) -> dict[str, Any] | None:
    """Return each scorer's accuracy by how much better, and how much longer, the better one is."""
    known = [name for name in _NAMES if any(name in pair.differences for pair in pairs)]
    if not set(known) - {"length"}:
        return None
    rows = []
    for what, edges in (("gold", STRENGTHS), ("length", _LENGTHS)):
        columns = [list(_bins(pairs, name, what, edges)) for name in known]
        if all(columns):
            rows += [[f"{what} {line[0][0]}", line[0][1], *(round(one[2], 4) for one in line)]
                     for line in zip(*columns, strict=True) if line[0][1]]  # fmt: skip
    return {
        "title": "Scorers by strength and length",
        "caption": "Accuracy on the same pairs, by gold of the better answer less that of the other, and by the tokens "
        "that it is longer. The number of pairs is that of the first scorer. Diagnostic.",
        "columns": ["difference", "pairs", *(_NAMES[name] for name in known)],
        "rows": rows,
    }


def _bins(
    pairs: Sequence[ScoredPair], name: str, what: str, edges: Sequence[float]
) -> Iterator[tuple[str, int, float]]:
    chosen = [pair for pair in pairs if name in pair.differences and (what == "gold" or what in pair.differences)]
    if chosen:
        values = [pair.gold if what == "gold" else pair.differences[what] for pair in chosen]
        yield from by_bin([pair.differences[name] for pair in chosen], values, edges)


def _quality(pairs: Sequence[ScoredPair], name: str) -> list[Any]:
    known = [pair for pair in pairs if name in pair.differences]
    margins = np.array([pair.differences[name] for pair in known])
    interval = bootstrap_interval(right(margins), [pair.cluster for pair in known])
    sure = calibration(margins / temperature(margins))
    both = [pair.differences for pair in known if TRAINING in pair.differences]
    alike = error_correlation([one[name] for one in both], [one[TRAINING] for one in both])
    numbers = [accuracy(margins), interval.low, interval.high, sure.log_loss, sure.brier, sure.ece, alike]
    return [len(known), *(None if np.isnan(value) else round(float(value), 4) for value in numbers)]


def _by_answer(cell: Cell) -> dict[tuple[str, int], dict[str, float]]:
    found: dict[tuple[str, int], dict[str, float]] = {}
    for row in cell.scores:
        if row["metric"] in ("gold", *_NAMES) and row["value"] is not None:
            found.setdefault((str(row["prompt_id"]), int(row["sample"])), {})[row["metric"]] = float(row["value"])
    return {key: scores for key, scores in found.items() if "gold" in scores and len(scores) > 1}


def _pairs(cluster: str, answers: Sequence[dict[str, float]]) -> Iterator[ScoredPair]:
    for one, other in combinations(answers, 2):
        better, worse = (one, other) if one["gold"] >= other["gold"] else (other, one)
        if better["gold"] > worse["gold"]:
            shared = {name: better[name] - worse[name] for name in _NAMES if name in better and name in worse}
            yield ScoredPair(cluster, better["gold"] - worse["gold"], shared)
