"""What a run's scorers do with SFT samples of prompts that no method trains on: best of n, texts spoilt on purpose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from datasets import Dataset

from alignarena.benchmarks.cell import Bench
from alignarena.core.contract import Scorer
from alignarena.results.best_of_n import best_of_n_reward
from alignarena.results.resampling import Floats
from alignarena.results.reward_quality import accuracy

SPOILT: dict[str, Callable[[str], str]] = {
    "said twice": lambda text: f"{text} {text}",
    "empty": lambda text: "",
    "cut in half": lambda text: " ".join(text.split()[: len(text.split()) // 2]),
}
_NOT_ITS_OWN = {"completion_ids": None, "logps": None}  # of a sample, once its text is another's


def reward_checks(bench: Bench) -> dict[str, Any]:
    """Return the gold of the best of n by each scorer, and the share of originals that it prefers to spoilt ones.

    The held-out reward model was fitted to labels of these very prompts, so its best of n says little.
    """
    samples = bench.given.heldout_samples(bench.sft, bench.lab).to_list()
    scorers: dict[str, Scorer] = {"gold": bench.given.gold, "reward model that methods optimised": bench.proxy,
                                  "reward model held out from training": bench.heldout_reward}  # fmt: skip
    n = bench.given.suite.feedback.n
    finished = [row for row in samples if row["sample"] == 0 and row["finish_reason"] == "stop"
                and len(row["completion"].split()) > 1]  # fmt: skip
    forms: list[Callable[[str], str]] = [str, *SPOILT.values()]
    retold = [{**row, **_NOT_ITS_OWN, "completion": form(row["completion"])} for form in forms for row in finished]
    # in one pass: a prompt is computed once for its samples and all that was made of them
    scores = {name: np.array(bench.lab.score(Dataset.from_list(samples + retold), scorer)["score"][:], float)
              for name, scorer in scorers.items()}  # fmt: skip
    gold = scores["gold"][: len(samples)].reshape(-1, n)
    rows = [[name, *_best(found[: len(samples)].reshape(-1, n), gold),
             *_preferred(found[len(samples) :].reshape(len(forms), -1))] for name, found in scores.items()]  # fmt: skip
    return {
        "title": "Reward models on SFT samples",
        "caption": f"Mean gold of the best of n SFT samples by each scorer, unbiased from {n} a prompt; and the share "
        f"of {len(finished)} finished samples that it prefers to the same one spoilt, ties half. The prompts are those "
        "that the held-out reward model was fitted on; no other scorer saw them. Diagnostic.",
        "columns": ["scorer", *(f"best of {i}" for i in range(1, n + 1)), *SPOILT],
        "rows": rows,
    }


def _best(scores: Floats, gold: Floats) -> list[float]:
    """Return the mean gold of the best of 1 to n, by scores (P, n)."""
    return [round(float(np.mean(best_of_n_reward(i, scores, gold))), 4) for i in range(1, scores.shape[1] + 1)]


def _preferred(scores: Floats) -> list[float | None]:
    """Return the share of originals that score above each spoilt form, by scores (1 + forms, P), originals first."""
    shares = [accuracy(scores[0] - spoilt) for spoilt in scores[1:]]
    return [None if np.isnan(share) else round(share, 4) for share in shares]
