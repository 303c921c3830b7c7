"""Fabricates run folders of the exact laboratory from small random worlds, whose figures obey its identities."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignarena.core.records import Ledger
from alignarena.core.seeds import generator
from alignarena.results.store import RunFolder

Floats = NDArray[np.float64]
METHODS = ("sft", "dpo", "cpl", "rejection_sampling")
PROMPTS, LEAVES, BETA = 12, 30, 0.5  # as many prompts again are trained on


class World:
    """Log-probs of a reference and gold rewards, (prompts, leaves); the first half of the prompts is held out."""

    def __init__(self, seed: int, training_seed: int = 0) -> None:
        self.gold = generator(seed, "gold").normal(size=(2 * PROMPTS, LEAVES))
        noise = generator(training_seed, "sft").normal(size=self.gold.shape)
        self.reference = normalised(generator(seed, "reference").normal(size=self.gold.shape) + 0.1 * noise)

    def tilted(self, beta: float) -> Floats:
        return normalised(self.reference + self.gold / beta)

    def targets(self) -> dict[str, Floats]:
        low = self.gold < np.median(self.gold, axis=1, keepdims=True)
        filtered = normalised(np.where(low, -np.inf, self.reference))
        return {"dpo": self.tilted(BETA), "cpl": normalised(self.gold / BETA), "rejection_sampling": filtered}

    def policy(self, method: str, error: float, seed: int) -> Floats:
        """The method's target, off by noise; with all error it stays near the reference."""
        if method == "sft":
            return self.reference
        target = self.targets()[method]
        noise = generator(seed, method).normal(size=target.shape)
        return normalised((1 - error) * np.maximum(target, -20) + error * self.reference + error * 0.3 * noise)

    def frontier(self) -> dict[str, list[float]]:
        tilts = [self.reference, *(self.tilted(beta) for beta in np.geomspace(20, 0.05, 40))]
        held = slice(PROMPTS)
        kl = [float(divergence(one, self.reference)[held].mean()) for one in tilts]
        return {"kl": kl, "reward": [float(mean(one, self.gold)[held].mean()) for one in tilts]}

    def measures(self, method: str, policy: Floats) -> dict[str, Floats]:
        optimum, target = self.tilted(BETA), self.targets().get(method)
        kl = divergence(policy, self.reference)

        def objective(one: Floats) -> Floats:
            return mean(one, self.gold) - BETA * divergence(one, self.reference)

        found = {
            "gold": mean(policy, self.gold),
            "kl": kl,
            "exact_objective": objective(policy),
            "exact_objective_reference": objective(self.reference),
            "exact_objective_optimum": objective(optimum),
            "exact_reference_reward": mean(self.reference, self.gold),
            "exact_frontier_reward": np.full_like(kl, self.best_reward(float(kl[:PROMPTS].mean()))),
            "exact_kl_from_optimum": divergence(optimum, policy),
        }
        if target is not None:
            found["exact_objective_bias"] = divergence(optimum, target)
            found["exact_learning_error"] = divergence(target, policy)
            found["exact_target_kl"] = divergence(target, self.reference)
        return found

    def best_reward(self, kl: float) -> float:
        curve = self.frontier()
        return float(np.interp(kl, curve["kl"], curve["reward"]))


def normalised(logits: Floats) -> Floats:
    top = logits.max(axis=1, keepdims=True)
    return np.asarray(logits - top - np.log(np.exp(logits - top).sum(axis=1, keepdims=True)))


def mean(log_p: Floats, values: Floats) -> Floats:
    return np.asarray((np.exp(log_p) * values).sum(axis=1))


def divergence(log_p: Floats, log_q: Floats) -> Floats:
    p = np.exp(log_p)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(p > 0, p * (log_p - log_q), 0).sum(axis=1))


def exact(
    path: Path,
    *,
    setting: str = "budget",
    labels: float = 512,
    world: int = 0,
    feedback_kind: str = "whole",
    seeds: tuple[int, ...] = (0, 1),
    methods: tuple[str, ...] = METHODS,
    failed: tuple[str, ...] = (),
    errors: Mapping[str, float] | None = None,
) -> RunFolder:
    """A finished run; a method's error (0: its target, 1: the reference) is its own, or shrinks with the labels."""
    folder = RunFolder(path)
    error = 0.05 if setting == "limit" else 16 / (16 + math.sqrt(labels))
    folder.write_suite(
        {
            "name": f"exact-{path.name}",
            "data": {"dataset": "exact", "world": {"seed": world, "beta": BETA, "feedback_kind": feedback_kind}},
            "feedback": {"annotator": "exact" if setting == "limit" else "bradley_terry"},
            "methods": {method: {} for method in methods},
            "seeds": list(seeds),
            "evaluators": ["exact", "behaviour"],
        }
    )
    folder.update_status(suite_digest=path.name)
    folder.write_json("extra/frontier.json", World(world, seeds[0]).frontier())
    for seed in seeds:
        for method in methods:
            if method in failed:
                folder.fail_cell(method, seed, "RunFailed: loss is NaN at step 3")
                continue
            drawn = World(world, seed)
            policy = drawn.policy(method, (errors or {}).get(method, error), seed)
            charged = Ledger(labels=0.0 if method == "sft" or setting == "limit" else labels).to_dict()
            folder.write_cell(
                method,
                seed,
                completions=[completion(prompt) for prompt in range(PROMPTS)],
                scores=scores(drawn.measures(method, policy)),
                budget={"charged": charged, "spent": charged, "track": "labels"},
            )
            folder.finish_cell(method, seed)
    return folder


def completion(prompt: int) -> dict[str, Any]:
    return {"prompt_id": f"p{prompt}", "prompt": f"a{prompt} b", "sample": 0, "completion": "c d", "tokens": 3}


def scores(measures: Mapping[str, Floats]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for metric, values in measures.items():
        for prompt, value in enumerate(values):
            suffix = "" if prompt < PROMPTS else "_trained"
            row = {"prompt_id": f"p{prompt}", "sample": 0, "evaluator": "exact", "metric": metric + suffix}
            rows.append(row | {"value": float(value) if math.isfinite(value) else None})
    lengths = {"sample": 0, "evaluator": "behaviour", "metric": "length", "value": 3.0}
    return rows + [{"prompt_id": f"p{prompt}", **lengths} for prompt in range(PROMPTS)]
