"""SFT again: as many tokens as it is told, no labels, no samples."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from alignarena.core.contract import Schedule
from alignarena.methods.parts.losses import SFTLoss
from alignarena.methods.sft_more import SFTMore

FAST = Schedule(learning_rate=1e-2, batch_size=8)


def test_it_trains_on_the_tokens_it_is_given_to_the_nearest_epoch(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    each = lab.tokens(task.demonstrations, SFTLoss())
    SFTMore(trained_tokens=int(3.4 * each), schedule=FAST).align(task, lab)
    (fit,) = lab.account.stages
    assert fit["ledger"]["trained_tokens"] == 3 * each  # as the ledger counts them
    assert fit["ledger"]["optimizer_steps"] == 3
    assert (lab.account.charged.labels, lab.account.charged.completions) == (0, 0)


def test_it_goes_on_where_the_shared_start_ended(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    policy = SFTMore(trained_tokens=2_000, schedule=FAST).align(task, lab)
    lines = [json.loads(line) for line in (policy.folder / "metrics.jsonl").read_text().splitlines()]  # type: ignore[attr-defined]
    own = [-sum(one) for one in lab.logps(task.policy, task.demonstrations)["logps"]]
    tokens = [len(one) for one in lab.logps(task.policy, task.demonstrations)["logps"]]
    assert lines[0]["loss"] == pytest.approx(sum(own) / sum(tokens), rel=1e-4)  # all 8 prompts are one batch
    assert lines[-1]["loss"] < lines[0]["loss"]
