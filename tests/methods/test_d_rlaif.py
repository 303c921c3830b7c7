"""Direct RLAIF: what the labeler says of a completion is its reward (what it costs and learns is in test_rlaif)."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from toy_labeler import ToyLabeler, with_labeler

from alignarena.core.contract import Schedule
from alignarena.methods.d_rlaif import DirectRLAIF


def test_the_mean_score_is_the_labelers_of_what_was_sampled(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    steps = Schedule(learning_rate=1e-2, batch_size=8, adam_epsilon=1e-5)
    policy: Any = DirectRLAIF(updates=1, prompts_per_update=8, n=2, schedule=steps).align(with_labeler(task), lab)
    line = json.loads((policy.folder / "metrics.jsonl").read_text().splitlines()[0])
    order = [int(i) for i in lab.random("rollout order", 0).permutation(8)]
    sampled = lab.sample(task.policy, task.prompts.select(order), 2, stream="rollout 0")
    assert line["objective/scores"] == pytest.approx(sum(ToyLabeler().score(sampled, lab)) / 16, abs=1e-5)
