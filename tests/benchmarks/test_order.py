"""The suite of the order of stages: its arms draw and score equally, as a dry run counts them."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from alignarena.benchmarks.counting import CountedPolicy, CountingLab, Sizes
from alignarena.benchmarks.datasets import load_dataset_splits
from alignarena.benchmarks.start import Given
from alignarena.benchmarks.suite import build_method, load_suite
from alignarena.benchmarks.sweep import shared_settings

ARMS = ("ppo", "rejection_sampling", "rs_then_ppo", "ppo_then_rs")


@dataclass
class Calls(CountingLab):
    """Counts the completions that a reward model scores, each set of rows once, as it is paid for."""

    scored: Counter[str] = field(default_factory=Counter)

    def _phases(self, phases: int) -> Iterator[int]:
        yield from range(phases)  # all of them: nobody multiplies what is counted here

    def score(self, rows: Any, scorer: Any) -> Any:
        key = self._key(rows, scorer)
        if "fit" in self.running or key not in self.scored:
            self.scored[key] += len(rows)
        return super().score(rows, scorer)


def test_the_arms_draw_and_score_as_many_completions() -> None:
    plan = load_suite("order")
    assert tuple(plan.methods) == ("sft", *ARMS)
    given = Given(plan, load_dataset_splits(plan.data), CountedPolicy("base"))
    sizes = Sizes(plan.model.max_new_tokens, 0, lambda prompt: 10, lambda text: 10)
    sft = given.sft(CountingLab(0, sizes=sizes))
    counts = {}
    for name in ARMS:
        method = shared_settings(build_method(name, plan.methods[name]), plan.methods[name], plan)
        lab = Calls(0, sizes=sizes)
        method.align(given.task(sft, lab), lab)
        total = lab.total
        counts[name] = (total.completions, lab.scored.total(), total.labels)
    prompts, ranked = len(given.splits.prompts), len(given.splits.feedback_prompts)
    assert prompts == ranked == 180
    # the annotator's samples, those that the reward model is standardised on, and what is learnt from
    assert counts["ppo"][:2] == (180 * 4 + 180 + 1440, 180 + 1440)
    assert counts["ppo"][2] == pytest.approx(180 * 4.584963)
    assert len(set(counts.values())) == 1
