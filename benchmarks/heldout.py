"""What no method touches: people's held-out pairs, and how well reward models and 'the longer one wins' order them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from datasets import Dataset

from alignarena.benchmarks.cell import Bench
from alignarena.core.contract import Rows, Scorer
from alignarena.results.stats import bootstrap_interval

Scores = Callable[[Rows], list[float]]


def reward_model_table(bench: Bench) -> dict[str, Any]:
    """Return the accuracy of each reward model on held-out pairs of each axis, crossed, as a table of the report."""
    given = bench.given
    axes = list(given.splits.heldout)
    scorers: dict[str, Scores] = {"the longer one wins": lambda rows: [float(len(text)) for text in rows["completion"]]}
    task = given.task(bench.sft, bench.lab)
    for axis in ("overall", *(axes if len(axes) > 1 else ())):
        modelling = replace(given.suite.reward_model, axis=axis)
        scorers[f"reward model of {axis} pairs"] = _scores(bench, modelling.fit(task, bench.lab))
    if "win_rate" in given.suite.evaluators and given.suite.evaluation.win_rate_judge == "reward_model":
        scorers["judge (reward model of a disjoint half)"] = _scores(bench, bench.judge)
    if "heldout_reward" in given.suite.evaluators:
        scorers["linear reward model of the same half"] = _scores(bench, bench.heldout_reward)
    rows = [[name, *(cell for axis in axes for cell in _accuracy(given.splits.heldout[axis], scores))]
            for name, scores in scorers.items()]  # fmt: skip
    columns = ["scorer", *(f"{axis} {what}" for axis in axes for what in ("accuracy", "low", "high", "pairs"))]
    return {
        "title": "Reward models on held-out human pairs",
        "caption": "Share of pairs ordered as people did, ties half; 95 % interval over opening turns. A reward model "
        "that does not beat 'the longer one wins' has learned little else. Diagnostic.",
        "columns": columns,
        "rows": rows,
    }


def _scores(bench: Bench, scorer: Scorer) -> Scores:
    return lambda rows: list(bench.lab.score(rows, scorer)["score"])


def _accuracy(pairs: Sequence[Mapping[str, Any]], scores: Scores) -> list[float]:
    sides = [scores(Dataset.from_list([{"prompt_id": p["pair_id"], "prompt": p["prompt"], "completion": p[side]}
                                       for p in pairs])) for side in ("chosen", "rejected")]  # fmt: skip
    right = [0.5 if a == b else float(a > b) for a, b in zip(*sides, strict=True)]
    interval = bootstrap_interval(right, [pair["cluster"] for pair in pairs])
    return [round(interval.mean, 4), round(interval.low, 4), round(interval.high, 4), len(right)]
