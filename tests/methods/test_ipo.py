"""IPO: DPO's rows and costs, a finite aim."""

import json
from collections.abc import Callable
from math import log2
from typing import Any

import pytest
import toy_task

from alignarena.core import registry
from alignarena.core.contract import Schedule
from alignarena.methods.ipo import IPO
from alignarena.methods.parts.losses import IPOLoss
from alignarena.methods.parts.rows import pairs

FAST = Schedule(learning_rate=1e-2, num_train_epochs=6, batch_size=8)


def _log(policy: Any) -> list[dict[str, float]]:
    return [json.loads(line) for line in (policy.folder / "metrics.jsonl").read_text().splitlines()]


def test_ipo_pays_for_labels_and_samples_nothing_itself(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    IPO(schedule=FAST).align(task, lab)
    assert [stage["verb"] for stage in lab.account.stages] == ["sample", "prefer", "fit"]
    assert (lab.account.charged.completions, lab.account.charged.labels) == (8 * 4, pytest.approx(8 * log2(24)))
    assert lab.account.stages[-1]["ledger"]["sampled_tokens"] == 0


def test_ipo_prefers_what_the_annotator_prefers(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    policy = IPO(schedule=FAST).align(task, lab)
    lines = _log(policy)
    assert lines[0]["loss"] == pytest.approx((1 / 0.2) ** 2, rel=1e-5)  # at the reference model h is 0
    assert lines[-1]["loss"] < 0.6 * lines[0]["loss"] and lines[-1]["accuracy"] > 0.8
    assert toy_task.agreement(lab, policy, task.policy, pairs(task.preferences["overall"])) > 0.8


def test_its_aim_is_finite(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    near = Schedule(learning_rate=5e-3, num_train_epochs=40, batch_size=8)
    last = _log(IPO(beta=1.0, schedule=near).align(task, lab))[-1]
    assert last["margin"] == pytest.approx(0.5, abs=0.15)  # h rests at 1 / (2 beta); DPO's goes on


def test_the_registered_defaults() -> None:
    assert registry.find("ipo").build() == IPO(beta=0.1)
    assert IPO().beta == IPOLoss().beta
