"""ORPO: fine-tuning on the chosen completion, and the odds of the rejected one lowered."""

import json
from collections.abc import Callable
from math import log2
from typing import Any

import pytest
import toy_task

from alignarena.core import registry
from alignarena.core.contract import Schedule
from alignarena.methods.orpo import ORPO
from alignarena.methods.parts.offline_losses import ORPOLoss
from alignarena.methods.parts.rows import pairs

FAST = Schedule(learning_rate=1e-2, num_train_epochs=6, batch_size=8)


def _log(policy: Any) -> list[dict[str, float]]:
    return [json.loads(line) for line in (policy.folder / "metrics.jsonl").read_text().splitlines()]


def test_orpo_pays_for_labels_and_asks_no_reference_model(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    ORPO(schedule=FAST).align(task, lab)
    assert [stage["verb"] for stage in lab.account.stages] == ["sample", "prefer", "fit"]
    assert (lab.account.charged.completions, lab.account.charged.labels) == (8 * 4, pytest.approx(8 * log2(24)))
    fit = lab.account.stages[-1]["ledger"]
    assert (fit["sampled_tokens"], fit["scored_tokens"]) == (0, 0)


def test_orpo_prefers_what_the_annotator_prefers_and_fits_it(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    policy = ORPO(odds_coef=1.0, schedule=FAST).align(task, lab)
    lines = _log(policy)
    assert lines[-1]["mean_logps_chosen"] > lines[0]["mean_logps_chosen"]
    assert lines[-1]["margin"] > lines[0]["margin"] + 0.5 and lines[-1]["accuracy"] > 0.8
    assert toy_task.agreement(lab, policy, task.policy, pairs(task.preferences["overall"])) > 0.8


def test_the_odds_are_what_separates_the_sides(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    none, much = [_log(ORPO(odds_coef=coef, schedule=FAST).align(task, lab))[-1]["margin"] for coef in (0.0, 1.0)]
    assert much > none


def test_the_registered_defaults() -> None:
    assert registry.find("orpo").build() == ORPO(odds_coef=0.1)
    assert ORPO().odds_coef == ORPOLoss().odds_coef
