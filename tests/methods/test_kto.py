"""KTO: completions one by one, each against the log-ratio of unrelated ones."""

import json
from collections.abc import Callable
from math import log2
from typing import Any

import pytest
import toy_task

from alignarena.core import registry
from alignarena.core.contract import Schedule
from alignarena.methods.kto import KTO
from alignarena.methods.parts.offline_losses import KTOLoss
from alignarena.methods.parts.rows import pairs

FAST = Schedule(learning_rate=1e-2, num_train_epochs=6, batch_size=8)


def _log(policy: Any) -> list[dict[str, float]]:
    return [json.loads(line) for line in (policy.folder / "metrics.jsonl").read_text().splitlines()]


def test_kto_pays_for_labels_and_samples_nothing_itself(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    KTO(schedule=FAST).align(task, lab)
    assert [stage["verb"] for stage in lab.account.stages] == ["sample", "prefer", "fit"]
    assert (lab.account.charged.completions, lab.account.charged.labels) == (8 * 4, pytest.approx(8 * log2(24)))
    fit = lab.account.stages[-1]["ledger"]
    assert (fit["sampled_tokens"], fit["optimizer_steps"]) == (0, 6)


def test_kto_pays_for_its_reference_point(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    for n in (1, 4):
        KTO(mismatched=n, schedule=FAST).align(task, lab)
    one, four = [stage["ledger"]["trained_tokens"] for stage in lab.account.stages if stage["verb"] == "fit"]
    assert four > 1.3 * one


def test_kto_prefers_what_the_annotator_prefers(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    policy = KTO(schedule=FAST).align(task, lab)
    lines = _log(policy)
    assert lines[0]["loss"] == pytest.approx(0.5, abs=1e-6) and lines[0]["kl"] == pytest.approx(0, abs=1e-5)
    assert lines[-1]["loss"] < 0.45 and lines[-1]["accuracy"] > 0.7
    assert toy_task.agreement(lab, policy, task.policy, pairs(task.preferences["overall"])) > 0.8


def test_the_registered_defaults() -> None:
    assert registry.find("kto").build() == KTO(beta=0.1)
    assert (KTO().beta, KTO().desirable_weight, KTO().undesirable_weight) == (
        KTOLoss().beta, KTOLoss().desirable_weight, KTOLoss().undesirable_weight,
    )  # fmt: skip
