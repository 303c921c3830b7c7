"""CPL: the regret preference model on completions, with and without its bias and its reference model."""

import json
from collections.abc import Callable
from dataclasses import replace
from math import log, log2
from typing import Any

import pytest
import toy_task
from datasets import Dataset

from alignarena.core import registry
from alignarena.core.contract import Rows, Schedule
from alignarena.methods.cpl import CPL, cpl_kl
from alignarena.methods.dpo import DPO
from alignarena.methods.parts.rows import pairs, with_repeats_named

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
    assert registry.find("cpl").build() == CPL(0.1, 0.75, 1.0, to_reference=True, bc_coef=0.0)
    assert not CPL().k_wise and not CPL().label_ties
    assert registry.find("cpl_kl").build() == cpl_kl() == CPL(bias=1.0)
    assert registry.find("cpl_plain").build() == CPL(bias=1.0, to_reference=False)


def test_a_ranking_read_as_one_row_costs_what_its_pairs_cost_and_teaches_the_same(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    policies = [CPL(k_wise=k_wise, schedule=FAST).align(task, lab) for k_wise in (False, True)]
    fits = [stage["ledger"] for stage in lab.account.stages if stage["verb"] == "fit"]
    assert fits[0]["trained_tokens"] == fits[1]["trained_tokens"]  # a completion is computed once, whatever its pairs
    assert lab.account.charged.labels == pytest.approx(8 * log2(24))
    lines = [_log(policy) for policy in policies]
    assert lines[1][0]["loss"] == pytest.approx(log(2), abs=1e-6)
    assert lines[1][-1]["loss"] < 0.8 * log(2)
    told = pairs(task.preferences["overall"])
    assert toy_task.agreement(lab, policies[1], task.policy, told) > 0.8


def ranked(ranks: list[int], completions: tuple[str, ...] = ("w1 w2", "w200 w201", "w3")) -> Rows:
    row = {"prompt_id": "p", "prompt": "w9", "completions": list(completions), "ranks": ranks}
    return Dataset.from_list([row, {**row, "prompt_id": "q", "prompt": "w8", "ranks": [1, 2, 3]}])


def test_a_tie_is_a_pair_of_one_half_only_where_asked_for() -> None:
    strict, tied = pairs(ranked([1, 1, 2])), pairs(ranked([1, 1, 2]), ties=True)
    assert (len(strict), len(tied)) == (5, 6) and "probability" not in strict.column_names
    assert tied["probability"][:] == [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert (tied[0]["chosen"], tied[0]["rejected"]) == ("w1 w2", "w200 w201")


@pytest.mark.parametrize("k_wise", [False, True])
def test_ties_labelled_one_half_hold_the_policy_back(toy_cell: Callable[..., Any], k_wise: bool) -> None:
    lab, task = toy_cell()
    given = replace(task, preferences={"overall": ranked([1, 1, 2])})
    logs = [_log(CPL(bias=1.0, k_wise=k_wise, label_ties=ties, schedule=FAST).align(given, lab))
            for ties in (False, True)]  # fmt: skip
    # at the end the tied pair still costs log 2 or more, the others less
    assert logs[0][-1]["loss"] < logs[1][-1]["loss"] < log(2)
    assert [log_[0]["loss"] for log_ in logs] == pytest.approx([log(2)] * 2, abs=1e-6)


def test_repeats_within_a_ranking_state_no_preference(toy_cell: Callable[..., Any]) -> None:
    rows = ranked([1, 2, 3], ("w1 w2", "w1 w2", "w3"))
    assert with_repeats_named(rows)["same_as"][:] == [[0, 0, 2], [0, 0, 2]]
    ids = rows.add_column("completions_ids", [[[5], [6], [5]]] * 2)
    assert with_repeats_named(ids)["same_as"][0] == [0, 1, 0]
    lab, task = toy_cell()
    given = replace(task, preferences={"overall": rows.select([0])})
    pairwise, kwise = (_log(CPL(bias=0.5, k_wise=k_wise, schedule=FAST).align(given, lab)) for k_wise in (False, True))
    losses = [[line["loss"] for line in lines] for lines in (pairwise, kwise)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)  # two pairs of three, and the equal one in neither
