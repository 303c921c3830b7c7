"""DPO: the annotator's labels, one fit, nothing sampled."""

import json
from collections.abc import Callable
from dataclasses import replace
from math import log, log2
from typing import Any

import pytest
import toy_task

from alignarena.core.contract import Schedule
from alignarena.methods.cpl import CPL
from alignarena.methods.dpo import DPO
from alignarena.methods.parts.rows import pairs

FAST = Schedule(learning_rate=1e-2, num_train_epochs=6, batch_size=8)


def test_dpo_pays_for_labels_and_samples_nothing_itself(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    policy = DPO(schedule=FAST).align(task, lab)
    assert [stage["verb"] for stage in lab.account.stages] == ["sample", "prefer", "fit"]
    charged = lab.account.charged
    assert charged.completions == 8 * 4  # those the annotator compared
    assert charged.labels == pytest.approx(8 * log2(24))
    fit = lab.account.stages[-1]["ledger"]
    assert (fit["completions"], fit["sampled_tokens"], fit["optimizer_steps"]) == (0, 0, 6)
    assert fit["scored_tokens"] * 6 == fit["trained_tokens"]  # the reference model reads each row once, not each epoch
    assert len(lab.sample(policy, task.prompts, stream="evaluation")) == 8


def test_dpo_prefers_what_the_annotator_prefers(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    policy = DPO(schedule=FAST).align(task, lab)
    lines = [json.loads(line) for line in (policy.folder / "metrics.jsonl").read_text().splitlines()]  # type: ignore[attr-defined]
    assert lines[0]["loss"] == pytest.approx(log(2), abs=1e-6)
    assert lines[-1]["loss"] < 0.5
    assert lines[-1]["accuracy"] > 0.8
    assert toy_task.agreement(lab, policy, task.policy, pairs(task.preferences["overall"])) > 0.8


def test_a_large_beta_stays_nearer_to_the_reference_model(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    margins = {}
    for beta in (0.1, 5.0):
        policy = DPO(beta=beta, schedule=FAST).align(task, lab)
        last = (policy.folder / "metrics.jsonl").read_text().splitlines()[-1]  # type: ignore[attr-defined]
        margins[beta] = json.loads(last)["margin"] / beta
    assert margins[5.0] < margins[0.1]


def test_without_a_reference_model_none_is_paid_for(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    policy = DPO(reference_free=True, schedule=FAST).align(task, lab)
    fit = lab.account.stages[-1]["ledger"]
    assert (fit["scored_tokens"], fit["optimizer_steps"]) == (0, 6)
    assert toy_task.agreement(lab, policy, task.policy, pairs(task.preferences["overall"])) > 0.8


def test_t1_dpo_without_a_reference_model_takes_the_steps_of_plain_cpl(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    methods = DPO(0.3, reference_free=True, schedule=FAST), CPL(0.3, bias=1.0, to_reference=False, schedule=FAST)
    logs = [(method.align(task, lab).folder / "metrics.jsonl").read_text() for method in methods]  # type: ignore[attr-defined]
    lines = [[json.loads(line) for line in log.splitlines()] for log in logs]
    for name in ("loss", "grad_norm", "margin", "accuracy"):
        assert [line[name] for line in lines[0]] == pytest.approx([line[name] for line in lines[1]], abs=1e-6), name


def test_conservative_dpo_does_not_grow_its_margin_without_end(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    margins = []
    for smoothing in (0.0, 0.3):
        policy = DPO(label_smoothing=smoothing, schedule=replace(FAST, num_train_epochs=20)).align(task, lab)
        margins.append(json.loads((policy.folder / "metrics.jsonl").read_text().splitlines()[-1])["margin"])  # type: ignore[attr-defined]
    assert margins[1] < min(margins[0], 1.5)  # log(.7 / .3) = .85 is where it rests
