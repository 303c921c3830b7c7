"""Fabricates run folders as the harness leaves them, with completions that try to break whatever shows them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from alignarena.core.records import Ledger
from alignarena.core.seeds import generator
from alignarena.results.store import RunFolder

NASTY = [
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(2)>",
    "\"double\" 'single' `back` & &amp; {{ 7*7 }} ${x}",
    "before\x00after \x07bell",
    "\u202ereversed\u202c and \u200fmark",
    "emoji \U0001f9d1\u200d\U0001f680 and \u4f60\u597d",
    "line\u2028separator and paragraph\u2029separator",
    "lone surrogate \ud83d here",
    "--> ]]> <!-- <![CDATA[",
]
# (gold strength, chance of finishing, KL): ppo is clearly above sft, dpo a little, rejection_sampling not to be told.
METHODS = {
    "base": (0.35, 0.45, 4.0),
    "sft": (0.45, 0.95, 0.0),
    "best_of_n": (0.62, 0.95, math.log(4) - 3 / 4),
    "dpo": (0.60, 0.93, 1.4),
    "ppo": (0.72, 0.94, 3.1),
    "rejection_sampling": (0.46, 0.95, 0.3),
}
TOPICS, SAMPLES = 40, 2


def quickstart(
    path: Path,
    *,
    seeds: tuple[int, ...] = (0,),
    failed: tuple[str, ...] = (),
    methods: tuple[str, ...] = tuple(METHODS),
) -> RunFolder:
    """A finished run of a controlled-sentiment suite; the methods in ``failed`` diverged."""
    folder = start(path, methods, seeds)
    for seed in seeds:
        for method in methods:
            if method in failed:
                folder.write_cell(method, seed, budget=budget(method))
                folder.fail_cell(method, seed, "RunFailed: loss is NaN at step 3 <b>bold</b>", "Traceback ...")
            else:
                write_cell(folder, method, seed)
    folder.write_results_parquet()
    return folder


def start(path: Path, methods: tuple[str, ...], seeds: tuple[int, ...]) -> RunFolder:
    folder = RunFolder(path)
    folder.write_suite(
        {
            "name": "quickstart",
            "revision": 1,
            "model": {"name": "smollm2-135m-instruct"},
            "budget": {"track": "labels"},
            "methods": {method: {} for method in methods},
            "seeds": list(seeds),
            "evaluators": ["gold", "second_opinion", "proxy", "win_rate", "kl", "behaviour"],
        }
    )
    cells = {f"{method}/{seed}": "WAITING" for seed in seeds for method in methods}
    folder.write_json("provenance.json", provenance(methods, seeds))
    folder.update_status(suite_digest="d1", cells=cells, machine_seconds=431.5, machine_peak_memory_mib=2100.0)
    return folder


def provenance(methods: tuple[str, ...], seeds: tuple[int, ...]) -> dict[str, Any]:
    cards: dict[str, dict[str, Any]] = {
        method: {
            "paper": "arXiv:2305.18290",
            "summary": f"What {method} does.",
            "differs": "nothing",
            "hyperparameters": {"beta": 0.1, "schedule": {"learning_rate": 5e-05, "num_train_epochs": 1}},
        }
        for method in methods
    }
    if "base" in cards:
        cards["base"]["summary"] = "The model as given: an instruct model."
    if "best_of_n" in cards:
        cards["best_of_n"]["kl"] = "analytic upper bound"
    if "hir" in cards:
        cards["hir"]["informed"] = True
    return {
        "alignarena": "0.1.0",
        "versions": {"torch": "2.13.0", "transformers": "5.23.0"},
        "suite_digest": "d1",
        "device": "cpu",
        "precision": "bf16",
        "seeds": list(seeds),
        "model": {"name": "smollm2-135m-instruct"},
        "command": "alignarena run quickstart --out runs/quickstart",
        "started": "2026-11-22T15:00:00+00:00",
        "finished": "2026-11-22T15:12:00+00:00",
        "methods": cards,
    }


def write_cell(folder: RunFolder, method: str, seed: int, stopped: str = "finished", **notes: Any) -> None:
    completions, scores = sampled(method, seed)
    folder.write_cell(
        method,
        seed,
        config={"beta": 0.1, "schedule": {"learning_rate": 5e-05}},
        completions=completions,
        scores=scores,
        metrics=[] if method in ("base", "best_of_n") else training(method),
        budget=budget(method),
    )
    folder.finish_cell(method, seed, stopped, **notes)


def sampled(method: str, seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    strength, finishing, kl = METHODS.get(method, (0.5, 0.9, 1.0))
    completions, scores = [], []
    for prompt in range(TOPICS * 2):
        shared = generator(seed, "prompt", prompt)  # difficulty shared by all methods, so that pairing pays
        difficulty = shared.normal(0, 0.15)
        for sample in range(SAMPLES):
            rng = generator(seed, method, prompt, sample)
            prompt_id, finished, topic = f"p{prompt:03d}", float(rng.random() < finishing), float(rng.random() < 0.97)
            sentiment = float(np.clip(strength + difficulty + rng.normal(0, 0.1), 0, 1))
            on_topic = finished * topic
            tokens = int(rng.integers(8, 25))
            plain = f"{method} says topic {prompt // 2} is {'very ' * (tokens // 3)}fine, sample {sample}."
            text = NASTY[prompt] if prompt < len(NASTY) else plain
            completions.append(
                {
                    "prompt_id": prompt_id,
                    "prompt": f"Write one sentence about topic {prompt // 2}."
                    if prompt % 5
                    else [{"role": "user", "content": f"Topic {prompt // 2} <i>please</i>"}],
                    "cluster": f"topic-{prompt // 2}",
                    "sample": sample,
                    "completion": text,
                    "finish_reason": "stop" if finished else "length",
                    "tokens": tokens,
                    "inference_tokens": tokens * (4 if method == "best_of_n" else 1),
                }
            )
            values = {
                "gold": {
                    "gold": sentiment * on_topic,
                    "on_topic": on_topic,
                    "finished": finished,
                    "topic": topic,
                    "sentiment": sentiment if on_topic else None,
                },
                "second_opinion": {"second_sentiment": float(np.clip(sentiment - 0.1, 0, 1)), "disagreement": 0.1},
                "proxy": {"proxy_reward": 3 * sentiment - 1},
                "win_rate": {"win": 0.5 if method == "sft" else float(rng.random() < strength + 0.05)},
                "kl": {"kl": kl if method == "best_of_n" else kl + float(rng.normal(0, 0.1)) * (kl > 0)},
                "behaviour": {
                    "length": tokens,
                    "inference_tokens": tokens * (4 if method == "best_of_n" else 1),
                    "eos": finished,
                    "distinct_1": 0.9,
                    "distinct_2": 0.99,
                },
            }
            scores += [
                {"prompt_id": prompt_id, "sample": sample, "evaluator": evaluator, "metric": metric, "value": value}
                for evaluator, metrics in values.items()
                for metric, value in metrics.items()
            ]
    return completions, scores


def training(method: str, reward: Callable[[int], float] = lambda step: 0.6 - 0.3 * 0.5**step) -> list[dict[str, Any]]:
    rng = generator(0, "training", method)
    rows = [
        {"fit": 0, "loss_name": "SFTLoss", "phase": 0, "step": step, "learning_rate": 1e-4, "loss": 2 - 0.05 * step}
        for step in range(20)
    ]
    rows += [
        {
            "fit": 1,
            "loss_name": f"{method.upper()}Loss",
            "phase": step // 4,
            "step": step,
            "learning_rate": 5e-5,
            "loss": 0.69 - 0.01 * step + float(rng.normal(0, 0.01)),
            "objective/kl": 0.1 * step,
            "reward": reward(step),
            "grad_norm": 1.0,
        }
        for step in range(16)
    ]
    return rows


def budget(method: str) -> dict[str, Any]:
    sft = Ledger(prompts=100, trained_tokens=12_000, optimizer_steps=20, seconds=31.0, peak_memory_mib=1500.0)
    sampling = Ledger(160, 640, sampled_tokens=14_000, labels=458.5, seconds=22.0, peak_memory_mib=900.0)
    charged, spent = sft + sampling, sampling
    return {
        "charged": charged.to_dict(),
        "spent": spent.to_dict(),
        "budget": {"labels": 500.0, "trained_tokens": None},
        "track": "labels",
        "stages": [
            {"verb": "fit", "stage": "sft", "key": "aa11", "hit": True, "ledger": sft.to_dict()},
            {"verb": "sample", "stage": f"draw {method}", "key": "bb22", "hit": False, "ledger": sampling.to_dict()},
        ],
    }


def human_preferences(path: Path) -> RunFolder:
    """A finished run of a suite without gold: held-out human pairs instead, and an extra table."""
    folder = start(path, ("sft", "dpo"), (0,))
    folder.write_suite({**folder.suite, "name": "hh"})
    folder.update_status(suite_digest="hh1")
    kept = {"proxy", "win_rate", "kl", "behaviour"}
    for method in ("sft", "dpo"):
        write_cell(folder, method, 0)
        _, scores = sampled(method, 0)
        rng = generator(0, "heldout", method)
        heldout = [
            {
                "prompt_id": f"pair-{pair}",
                "sample": 0,
                "evaluator": "heldout",
                "metric": "human_accuracy",
                "value": float(rng.random() < 0.6),
            }
            for pair in range(50)
        ]
        folder.write_cell(method, 0, scores=[row for row in scores if row["evaluator"] in kept] + heldout)
    folder.write_json(
        "extra/reward_model.json",
        {
            "title": "Reward model on held-out human pairs",
            "caption": "Accuracy <beside> always preferring the longer completion.",
            "columns": ["axis", "reward_model", "longer_wins", "pairs"],
            "rows": [["helpful", 0.61, 0.55, 128], ["harmless & <b>", 0.58, None, 128]],
        },
    )
    return folder
