"""A task for the tiny model: 8 prompts, rankings of 4 by the share of favoured words, an SFT policy that ends."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from datasets import Dataset

from alignarena.benchmarks.start import Lazily
from alignarena.core.contract import Rows, Schedule, Scorer, Task
from alignarena.core.seeds import generator
from alignarena.evaluators.annotator import SimulatedAnnotator
from alignarena.harness.lab import HarnessLab
from alignarena.harness.policy import AdapterPolicy
from alignarena.methods.parts.experience import Fixed
from alignarena.methods.parts.losses import SFTLoss
from alignarena.methods.parts.rows import rankings

SFT = Schedule(learning_rate=1e-2, num_train_epochs=8, batch_size=8)


@dataclass(frozen=True)
class Favours:
    """Scores the share of words below ``w100``, shifted, scaled or bent: what a model learns easily."""

    scale: float = 1.0
    shift: float = 0.0
    bent: bool = False  # by a monotone function

    @property
    def lineage(self) -> frozenset[str]:
        return frozenset({"favours"})

    def score(self, rows: Rows, lab: Any) -> list[float]:
        shares = [share(text) for text in rows["completion"]]
        return [self.scale * (math.exp(3 * one) if self.bent else one) + self.shift for one in shares]


def share(text: str) -> float:
    """Return the share of favoured words."""
    words = text.split()
    return sum(word[1:].isdigit() and int(word[1:]) < 100 for word in words) / max(1, len(words))


def words(*names: object, low: int = 3, high: int = 7) -> str:
    """Return a text of random words that depends on its name only."""
    draw = generator(0, *names)
    return " ".join(f"w{i}" for i in draw.integers(0, 294, size=int(draw.integers(low, high))))


def prompts(count: int = 8) -> Rows:
    """Return prompts of different lengths."""
    return Dataset.from_list(
        [
            {"prompt_id": f"p{i}", "prompt": words("prompt", i, low=1, high=9), "cluster": f"c{i // 2}",
             "kind": "ordinary", "axis": "helpful"}
            for i in range(count)
        ]
    )  # fmt: skip


def demonstrations(each: int = 3) -> Rows:
    """Return short completions of the prompts."""
    rows = [
        {"prompt_id": row["prompt_id"], "prompt": row["prompt"], "completion": words(row["prompt_id"], "shown", i)}
        for row in prompts()
        for i in range(each)
    ]
    return Dataset.from_list(rows)


def preferences(k: int = 4, count: int = 8) -> Rows:
    """Return rankings of fixed texts, no model asked."""
    rows = []
    for row in prompts(count):
        texts = [words(row["prompt_id"], "compared", i) for i in range(k)]
        shares = [share(text) for text in texts]
        ranks = [1 + sum(other > one for other in shares) for one in shares]
        rows.append({"prompt_id": row["prompt_id"], "prompt": row["prompt"], "completions": texts, "ranks": ranks})
    return Dataset.from_list(rows)


def base(lab: HarnessLab) -> AdapterPolicy:
    """Return the model as given."""
    return AdapterPolicy(lab.backbone.digest)


def sft(lab: HarnessLab) -> AdapterPolicy:
    """Fine-tune the base, through the lab."""
    return lab.fit(base(lab), Fixed(demonstrations()), SFTLoss(), SFT)  # type: ignore[return-value]


def agreement(lab: HarnessLab, policy: Any, reference: Any, pairs: Rows) -> float:
    """Return the share of pairs in which the chosen one gained more log-prob on the reference than the rejected one."""

    def logps(model: Any, side: str) -> list[float]:
        taken = pairs.select_columns(["prompt_id", "prompt"]).add_column("completion", pairs[side][:])
        taken = taken.add_column("completion_ids", pairs[f"{side}_ids"][:])
        return [sum(values) for values in lab.logps(model, taken)["logps"]]

    def gains(side: str) -> list[float]:
        return [a - b for a, b in zip(logps(policy, side), logps(reference, side), strict=True)]

    wins = [chosen > rejected for chosen, rejected in zip(gains("chosen"), gains("rejected"), strict=True)]
    return sum(wins) / len(wins)


def toy_task(lab: HarnessLab, policy: AdapterPolicy, scorer: Scorer | None = None) -> Task:
    """Return the task of a cell; its annotator is exact, and paid by the lab when its rankings are first read."""
    annotator = SimulatedAnnotator(scorer or Favours(), noise=0.0)

    def ranked() -> Rows:
        return lab.prefer(rankings(lab.sample(policy, prompts(), 4, stream="annotator")), annotator)

    return Task(
        base=base(lab),
        policy=policy,
        prompts=prompts(),
        demonstrations=demonstrations(),
        preferences=Lazily({"overall": ranked}),
        annotator=annotator,
    )


def two_axes(lab: HarnessLab, task: Task) -> Task:
    """Return the task with two axes, on which the annotators are of opposite opinions; "overall" is out of bounds."""
    scales = {"helpful": 1.0, "harmless": -1.0}
    judges = {name: SimulatedAnnotator(Favours(scale), noise=0.0) for name, scale in scales.items()}

    def ranked(name: str) -> Rows:
        return lab.prefer(rankings(lab.sample(task.policy, prompts(), 4, stream="annotator")), judges[name])

    def forbidden() -> Rows:
        raise AssertionError("overall was read")

    makers = {"overall": forbidden, **{name: partial(ranked, name) for name in judges}}
    return replace(task, preferences=Lazily(makers), annotators=judges)
