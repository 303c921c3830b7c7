"""CPL: the regret preference model on completions, with and without its bias and its reference model."""

import json
from collections.abc import Callable
from math import log, log2
from typing import Any

import pytest
import toy_task

from alignarena.core import registry
from alignarena.core.contract import Schedule
from alignarena.methods.cpl import CPL, cpl_kl
from alignarena.methods.dpo import DPO
from alignarena.methods.parts.rows import pairs

FAST = Schedule(learning_rate=1e-2, num_train_epochs=6, batch_size=8)


def _log(policy: Any) -> list[dict[str, float]]:
    return [json.loads(line) for line in (policy.folder / "metrics.jsonl").read_text().splitlines()]


def test_cpl_pays_for_labels_and_samples_nothing_itself(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    CPL(schedule=FAST).align(task, lab)
    assert [stage["verb"] for stage in lab.account.stages] == ["sample", "prefer", "fit"]
    assert (lab.account.charged.completions, lab.account.charged.labels) == (8 * 4, pytest.approx(8 * log2(24)))
    fit = lab.account.stages[-1]["ledger"]
    assert fit["sampled_tokens"] == 0 and fit["scored_tokens"] * 6 == fit["trained_tokens"]


def test_plain_cpl_reads_no_reference_model(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    CPL(to_reference=False, schedule=FAST).align(task, lab)
    assert lab.account.stages[-1]["ledger"]["scored_tokens"] == 0


@pytest.mark.parametrize("method", [CPL(schedule=FAST), CPL(bias=1.0, to_reference=False, schedule=FAST)])
def test_cpl_prefers_what_the_annotator_prefers(toy_cell: Callable[..., Any], method: CPL) -> None:
    lab, task = toy_cell()
    policy = method.align(task, lab)
    lines = _log(policy)
    if method.to_reference:
        assert lines[0]["loss"] == pytest.approx(log(2), abs=1e-6)  # whatever the bias
    assert lines[-1]["loss"] < 0.8 * lines[0]["loss"]
    assert toy_task.agreement(lab, policy, task.policy, pairs(task.preferences["overall"])) > 0.8


def test_the_bias_holds_up_the_log_probs_of_the_chosen(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    chosen = [_log(CPL(bias=bias, schedule=FAST).align(task, lab))[-1]["logps_chosen"] for bias in (1.0, 0.25)]
    assert chosen[1] > chosen[0] + 1


def test_cpl_without_bias_takes_the_steps_of_dpo(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    methods = CPL(alpha=0.3, bias=1.0, schedule=FAST), DPO(0.3, schedule=FAST)
    runs = [_log(method.align(task, lab)) for method in methods]
    for name in ("loss", "grad_norm", "margin", "accuracy"):
        assert [line[name] for line in runs[0]] == pytest.approx([line[name] for line in runs[1]], abs=1e-6), name


def test_the_registered_names_and_defaults() -> None:
    assert registry.find("cpl").build() == CPL(alpha=0.1, bias=0.75, gamma=1.0, to_reference=True, bc_coef=0.0)
    assert registry.find("cpl_kl").build() == cpl_kl() == CPL(bias=1.0)
    assert registry.find("cpl_plain").build() == CPL(bias=1.0, to_reference=False)
