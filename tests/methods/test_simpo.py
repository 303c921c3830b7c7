"""SimPO: DPO's rows, no reference model, no reward for length."""

import json
from collections.abc import Callable
from math import log2
from typing import Any

import pytest
import toy_task

from alignarena.core import registry
from alignarena.core.contract import Schedule
from alignarena.methods.parts.offline_losses import SimPOLoss
from alignarena.methods.parts.rows import pairs
from alignarena.methods.simpo import SimPO

FAST = Schedule(learning_rate=1e-2, num_train_epochs=6, batch_size=8)


def _log(policy: Any) -> list[dict[str, float]]:
    return [json.loads(line) for line in (policy.folder / "metrics.jsonl").read_text().splitlines()]


def test_simpo_pays_for_labels_and_asks_no_reference_model(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    SimPO(schedule=FAST).align(task, lab)
    assert [stage["verb"] for stage in lab.account.stages] == ["sample", "prefer", "fit"]
    assert (lab.account.charged.completions, lab.account.charged.labels) == (8 * 4, pytest.approx(8 * log2(24)))
    fit = lab.account.stages[-1]["ledger"]
    assert (fit["sampled_tokens"], fit["scored_tokens"]) == (0, 0)


def test_simpo_prefers_what_the_annotator_prefers(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    policy = SimPO(schedule=FAST).align(task, lab)
    lines = _log(policy)
    assert lines[-1]["loss"] < 0.7 * lines[0]["loss"] and lines[-1]["accuracy"] > 0.8
    assert toy_task.agreement(lab, policy, task.policy, pairs(task.preferences["overall"])) > 0.8


def test_a_larger_gamma_is_a_larger_margin(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    small, large = [_log(SimPO(gamma=gamma, schedule=FAST).align(task, lab))[-1]["margin"] for gamma in (0.0, 4.0)]
    assert large > small


def test_the_registered_defaults() -> None:
    assert registry.find("simpo").build() == SimPO(beta=2.0, gamma=1.0)
    assert (SimPO().beta, SimPO().gamma) == (SimPOLoss().beta, SimPOLoss().gamma)
