"""What a run's scorers do with SFT samples of prompts that no method trains on: best of n, texts spoilt on purpose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from datasets import Dataset

from alignarena.benchmarks.cell import Bench
from alignarena.core.contract import Rows, Scorer
from alignarena.evaluators.reward_quality import accuracy
from alignarena.results.best_of_n import best_of_n_reward

SPOILT: dict[str, Callable[[str], str]] = {
    "said twice": lambda text: f"{text} {text}",
    "empty": lambda text: "",
    "cut in half": lambda text: " ".join(text.split()[: len(text.split()) // 2]),
}


def reward_checks(bench: Bench) -> dict[str, Any]:
    """Return the gold of the best of n by each scorer, and the share of originals that it prefers to spoilt ones.

    The held-out reward model was fitted to labels of these very prompts, so its best of n says little.
    """
    samples = bench.given.heldout_samples(bench.sft, bench.lab)
    scorers: dict[str, Scorer] = {"gold": bench.given.gold, "reward model that methods optimised": bench.proxy,
                                  "reward model held out from training": bench.heldout_reward}  # fmt: skip
    n = bench.given.suite.feedback.n
    gold = _scores(bench, samples, bench.given.gold).reshape(-1, n)
    finished = samples.select([i for i, row in enumerate(samples.to_list())
                               if row["sample"] == 0 and row["finish_reason"] == "stop"
                               and len(row["completion"].split()) > 1])  # fmt: skip
    rows = [[name, *_best(bench, samples, scorer, gold), *_preferred(bench, finished, scorer)]
            for name, scorer in scorers.items()]  # fmt: skip
    return {
        "title": "Reward models on SFT samples",
        "caption": f"Mean gold of the best of n SFT samples by each scorer, unbiased from {n} a prompt; and the share "
        f"of {len(finished)} finished samples that it prefers to the same one spoilt, ties half. The prompts are those "
        "that the held-out reward model was fitted on; no other scorer saw them. Diagnostic.",
        "columns": ["scorer", *(f"best of {i}" for i in range(1, n + 1)), *SPOILT],
        "rows": rows,
    }


def _best(bench: Bench, samples: Rows, scorer: Scorer, gold: Any) -> list[float]:
    scores = _scores(bench, samples, scorer).reshape(gold.shape)
    n = gold.shape[1]
    return [round(float(np.mean(best_of_n_reward(i, scores, gold))), 4) for i in range(1, n + 1)]


def _preferred(bench: Bench, samples: Rows, scorer: Scorer) -> list[float | None]:
    if not len(samples):
        return [None] * len(SPOILT)
    plain = samples.remove_columns([name for name in samples.column_names if name in _OF_ITS_TOKENS])
    original = _scores(bench, plain, scorer)
    return [round(accuracy(original - _scores(bench, _spoilt(plain, spoil), scorer)), 4) for spoil in SPOILT.values()]


_OF_ITS_TOKENS = ("prompt_ids", "completion_ids", "logps", "finish_reason")


def _spoilt(rows: Rows, spoil: Callable[[str], str]) -> Rows:
    return Dataset.from_list([{**row, "completion": spoil(row["completion"])} for row in rows.to_list()])


def _scores(bench: Bench, rows: Rows, scorer: Scorer) -> Any:
    return np.array(bench.lab.score(rows, scorer)["score"][:], float)
