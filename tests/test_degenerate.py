"""Degenerate inputs, in the order of docs/degenerate.md: what becomes of each kind, and where it is counted."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import tiny_model
import torch
import toy_task
from datasets import Dataset
from known_reward import Known, trained_on
from torch.testing import assert_close

from alignarena.benchmarks.cell import _budget, _curves
from alignarena.benchmarks.pairs import Pair, pair_row
from alignarena.benchmarks.splits import Dropped
from alignarena.core.contract import Batch, Rows, Schedule
from alignarena.core.degenerate import in_preferences, in_samples, in_scores
from alignarena.core.errors import BadInput, RunFailed
from alignarena.core.feedback import standardised
from alignarena.harness.batches import examples
from alignarena.harness.lab import HarnessLab
from alignarena.harness.tokens import Tokens
from alignarena.methods.cpl import CPL
from alignarena.methods.dpo import DPO
from alignarena.methods.ipo import IPO
from alignarena.methods.kto import KTO
from alignarena.methods.parts.advantages import whiten
from alignarena.methods.parts.experience import Fixed
from alignarena.methods.parts.filters import joined, told_apart
from alignarena.methods.parts.losses import PAIR, DPOLoss, SFTLoss
from alignarena.methods.parts.policy_gradient import PPOLoss
from alignarena.methods.parts.reward_losses import KWiseRewardLoss, PairwiseRewardLoss
from alignarena.methods.parts.reward_modelling import RewardModelling
from alignarena.methods.parts.rows import best_of, finished, pairs, untied
from alignarena.methods.rejection_sampling import RejectionSampling
from alignarena.methods.rest import ReST
from alignarena.methods.trl import TRLDPO
from alignarena.results.dropped import counted
from alignarena.results.store import RunFolder

ToyCell = Callable[..., Any]
FAST = Schedule(learning_rate=1e-2, batch_size=8)
CONSTANT = toy_task.Favours(scale=0.0)


@pytest.fixture(scope="module")
def tokens() -> Tokens:
    return Tokens(tiny_model.tokenizer(), tiny_model.config("tiny"))  # type: ignore[arg-type]


def ranked(*ranks: int, prompt_id: str = "p", **more: Any) -> dict[str, Any]:
    texts = [f"w{i}" for i in range(len(ranks))]
    return {"prompt_id": prompt_id, "prompt": "w1", "completions": texts, "ranks": list(ranks), **more}


def pair(chosen: str, rejected: str, **more: Any) -> dict[str, Any]:
    return {"prompt_id": "p", "prompt": "w1 w2", "chosen": chosen, "rejected": rejected, **more}


def rows_of(*rows: dict[str, Any]) -> Rows:
    return Dataset.from_list(list(rows))


# -- rankings and pairs ---------------------------------------------------------------------------------------------


def test_ties_give_no_pair_and_a_ranking_of_ties_no_part_of_the_mean() -> None:
    rankings = rows_of(ranked(1, 2, 2), ranked(1, 1, 1, prompt_id="q"))
    assert [(row["chosen"], row["rejected"]) for row in pairs(rankings)] == [("w0", "w1"), ("w0", "w2")]
    assert untied(rankings)["prompt_id"][:] == ["p"]
    assert +in_preferences(rankings) == {"pairs compared": 6, "tied pairs": 4}


@pytest.mark.parametrize(
    "method", [DPO(), RejectionSampling(), replace(DPO(), reference_free=True), CPL(k_wise=True)]
)
def test_an_annotator_who_calls_all_even_fails_the_run(toy_cell: ToyCell, method: Any) -> None:
    lab, task = toy_cell()
    task = toy_task.toy_task(lab, task.policy, CONSTANT)
    with pytest.raises(RunFailed, match="nothing to learn from: the completions of each of 8 prompts are tied"):
        method.align(task, lab)
    met = lab.account.stages[-1]["met"]
    assert met["pairs compared"] == met["tied pairs"] == 48


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: DPO(label_smoothing=0.5), "dpo: label_smoothing must be at least 0 and below 0.5"),
        (lambda: TRLDPO(label_smoothing=1.0), "trl_dpo: label_smoothing must be at least 0 and below 0.5"),
        (lambda: IPO(beta=0.0), "ipo: beta must be above 0"),
        (lambda: KTO(mismatched=0), "kto: mismatched must be at least 1"),
        (lambda: PPOLoss(target_kl=0.0), "ppo: target_kl must be above 0"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(build: Callable[[], Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        build()


def test_a_label_of_one_half_pulls_back_where_a_tie_that_is_dropped_does_not() -> None:
    logps = {"chosen": torch.tensor([[-1.0]], requires_grad=True), "rejected": torch.tensor([[-2.0]])}
    reference = {"chosen": torch.tensor([[-2.0]]), "rejected": torch.tensor([[-2.0]])}
    mask = {side: torch.ones(1, 1) for side in PAIR}
    batch = Batch(mask, reference=reference, columns={"probability": torch.tensor([0.5])})
    loss, _ = DPOLoss(soft=True)(logps, batch)
    assert torch.autograd.grad(loss.sum(), logps["chosen"])[0].item() > 0  # descent lowers what has risen
    kept = [pairs(rows_of(ranked(1, 1, 2)), ties=ties)["probability" if ties else "chosen"] for ties in (True, False)]
    assert [list(one) for one in kept] == [[0.5, 1.0, 1.0], ["w0", "w1"]]


def test_pairs_that_contradict_each_other_are_all_kept(tokens: Tokens) -> None:
    said = rows_of(ranked(1, 2), ranked(2, 1), ranked(1, 2), ranked(1, 2, prompt_id="q"))
    assert +in_preferences(said) == {"pairs compared": 4, "contradicted pairs": 3}
    kept, dropped = examples(pairs(said), DPOLoss(), tokens)
    assert (len(kept), dropped.total()) == (4, 0)
    names = {pair_row(Pair("Q", *sides), "file", "overall", "ordinary")["pair_id"] for sides in ("ab", "ba")}
    assert len(names) == 2  # neither is taken for a repetition of the other


def test_identical_sides_are_dropped_by_their_tokens(toy_cell: ToyCell) -> None:
    lab, task = toy_cell()
    too_long = "w9 " * 20
    rows = [pair("w1", "w2"), pair("w3", "w3"), pair("w3 ", " w3"), pair(f"{too_long} w1", f"{too_long} w2")]
    lab.fit(task.policy, Fixed(Dataset.from_list(rows)), DPOLoss(), FAST)
    stage = lab.account.stages[-1]
    # what is too long is dropped and never cut: no two sides become equal by it
    assert stage["dropped"] == {"identical completions": 2, "longer than max_new_tokens": 1}
    assert stage["met"] == {"rows to train on": 4}


@pytest.mark.parametrize(("chosen", "rejected"), [("same", "same"), ("", "x")])
def test_a_file_gives_no_pair_that_says_nothing(chosen: str, rejected: str) -> None:
    with pytest.raises(Dropped, match=r"identical pair|empty completion"):
        Pair("Q", chosen, rejected)


def test_where_all_pairs_are_identical_nothing_is_trained(toy_cell: ToyCell) -> None:
    lab, task = toy_cell()
    with pytest.raises(BadInput, match="no rows left to train DPOLoss on: 2 identical completions"):
        lab.fit(task.policy, Fixed(rows_of(pair("w1", "w1"), pair("w2", "w2"))), DPOLoss(), FAST)
    with pytest.raises(RunFailed, match="nothing to learn from: both completions of each of 1 pairs are equal"):
        told_apart(rows_of(pair("w1", "w1")))


@pytest.mark.parametrize("loss", [DPOLoss(), PairwiseRewardLoss()])
def test_both_sides_of_a_pair_have_one_prompt(loss: Any, tokens: Tokens) -> None:
    assert {prompt for prompt, _ in loss.reads.values()} == {"prompt"}
    (example,), _ = examples(rows_of(pair("w1", "w2", prompt_ids=[4, 5, 6])), loss, tokens)
    assert {sequence.prompt for sides in example.sequences.values() for sequence in sides} == {(4, 5, 6)}


# -- rewards --------------------------------------------------------------------------------------------------------


def test_of_equal_scores_a_seed_chooses_and_not_the_place(toy_cell: ToyCell) -> None:
    scored = rows_of(*({"prompt_id": f"p{p}", "sample": i, "score": 0.5} for p in range(40) for i in range(4)))
    (lab, _), (other, _) = toy_cell(), toy_cell(seed=1)
    chosen = best_of(scored, lab)["sample"][:]
    assert chosen == best_of(scored, lab)["sample"][:] != best_of(scored, other)["sample"][:]
    assert set(chosen) == {0, 1, 2, 3} and chosen.count(0) < 20


def test_equal_scores_are_counted_by_prompt_and_by_set() -> None:
    names = ["p", "p", "q", "q", "r"]
    assert +in_scores(names, [1.0, 1.0, 0.0, 1.0, 1.0]) == {
        "prompts scored more than once": 2, "prompts of equal scores": 1, "sets scored": 1
    }  # fmt: skip
    assert +in_scores("pq", [2.0, 2.0]) == {"sets scored": 1, "sets of equal scores": 1}
    assert +in_scores("p", [2.0]) == {}


def test_equal_advantages_are_whitened_to_nothing() -> None:
    values = torch.full((2, 3), 0.1)
    assert_close(whiten(values, torch.ones(2, 3)), torch.zeros(2, 3))
    assert_close(whiten(values, torch.tensor([[1.0, 0, 0], [0, 0, 0]])), torch.zeros(2, 3))  # one valid token


def test_a_reward_model_of_equal_scores_is_shifted_and_not_scaled() -> None:
    assert standardised(CONSTANT, [0.3, 0.3, 0.3]).std == 1.0  # type: ignore[arg-type]


@dataclass(frozen=True)
class Gives:
    """Scores one value, or ranks with one."""

    value: Any
    lineage: frozenset[str] = frozenset()

    def score(self, rows: Rows, lab: Any) -> list[Any]:
        return [*[0.0] * (len(rows) - 1), self.value]

    def prefer(self, rows: Rows, lab: Any) -> Rows:
        judged = [{**row, "ranks": [1, 2], "margins": [0.0], "probability": 0.6} for row in rows.to_list()]
        judged[-1]["probability"] = self.value
        return Dataset.from_list(judged)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_feedback_that_is_no_number_fails_the_run_and_names_the_row(value: float, new_lab: Callable[..., Any]) -> None:
    rows = toy_task.demonstrations(1)
    with pytest.raises(RunFailed, match=r"Gives: the score of prompt 'p7' must be finite, not (nan|inf|-inf)"):
        new_lab().score(rows, Gives(value))
    compared = rows_of(*({"prompt_id": name, "prompt": "w1", "completions": ["w1", "w2"]} for name in "pq"))
    with pytest.raises(RunFailed, match="Gives: the probability of prompt 'q' must be finite"):
        new_lab().prefer(compared, Gives(value))
    with pytest.raises(RunFailed, match="KWiseRewardLoss: the margins of prompt 'p' must be finite"):
        new_lab().tokens(rows_of(ranked(1, 2, margins=[value])), KWiseRewardLoss(margin_scale=1.0))


def test_a_missing_number_is_no_zero(tokens: Tokens) -> None:
    rows = rows_of(pair("w1", "w2", probability=0.5), pair("w1", "w2", probability=None))
    with pytest.raises(RunFailed, match="the probability of prompt 'p' must be finite, not None"):
        examples(rows, DPOLoss(soft=True), tokens)


# -- completions ----------------------------------------------------------------------------------------------------


def test_to_end_at_once_is_a_completion_of_one_token(toy_cell: ToyCell) -> None:
    lab, task = toy_cell()
    eos = lab.backbone.tokens.eos_id
    row = {"prompt_id": "p", "prompt": "w1", "sample": 0, "completion": "", "completion_ids": [eos]}
    rows = rows_of({**row, "finish_reason": "stop"})
    (logps,) = lab.logps(task.policy, rows)["logps"]
    assert len(logps) == 1 and logps[0] < 0
    assert len(finished(rows)) == 1
    assert +in_samples(rows) == {"completions": 1, "empty completions": 1}


def test_a_completion_without_tokens_is_refused(toy_cell: ToyCell, tokens: Tokens) -> None:
    lab, task = toy_cell()
    row = {"prompt_id": "p", "prompt": "w1", "completion": "", "completion_ids": []}
    with pytest.raises(BadInput, match="the completion of prompt 'p' has no tokens"):
        lab.logps(task.policy, rows_of(row))
    kept, dropped = examples(rows_of(row, {**row, "completion_ids": [7, 1]}), SFTLoss(), tokens)
    assert (len(kept), dict(dropped)) == (1, {"empty completion": 1})


def test_completions_that_do_not_end_are_not_imitated() -> None:
    rows = [{"prompt_id": "p", "completion": "w1", "completion_ids": [i], "finish_reason": r}
            for i, r in enumerate(("stop", "length", "length"))]  # fmt: skip
    assert finished(Dataset.from_list(rows))["completion_ids"][:] == [[0]]
    assert +in_samples(Dataset.from_list(rows)) == {"completions": 3, "unfinished completions": 2}
    with pytest.raises(RunFailed, match="none of 2 completions ends by itself"):
        finished(Dataset.from_list(rows[1:]))


def test_a_completion_drawn_twice_counts_twice() -> None:
    row = {"prompt_id": "p", "prompt": "w1", "completion": "w2", "completion_ids": [5, 1], "finish_reason": "stop"}
    rows = rows_of({**row, "sample": 0}, {**row, "sample": 1}, {**row, "prompt_id": "q", "sample": 0})
    assert +in_samples(rows) == {"completions": 3, "repeated completions": 1}
    assert len(joined(rows, Dataset.from_list([]))) == 3  # imitation weighs a completion by how often it was drawn


# -- filters, and what reaches the report ---------------------------------------------------------------------------


def cell_of(lab: HarnessLab, folder: Path, method: str = "rest") -> RunFolder:
    """The run folder of one finished cell, as a sweep writes it."""
    run = RunFolder(folder)
    run.write_suite({"name": "toy", "methods": {method: {}}, "seeds": [0]})
    run.write_cell(method, 0, metrics=list(_curves(lab)), budget=_budget(lab))
    run.finish_cell(method, 0)
    return run


def test_a_filter_that_keeps_nothing_is_counted(toy_cell: ToyCell, tmp_path: Path) -> None:
    lab, task = cell = toy_cell()
    method = ReST(grow_steps=1, n=6, thresholds=(1.0,), demonstrations=False, reward_model=Known(), schedule=FAST)
    policy, fits, _ = trained_on(cell, method)
    assert fits == [] and policy is task.policy
    found = counted([cell_of(lab, tmp_path).read_cell("rest", 0)])
    assert found is not None and ("filters that kept nothing", 1, 1, "filters") in found


def test_counts_are_the_same_from_the_cache_and_add_up_over_stages(toy_cell: ToyCell, tmp_path: Path) -> None:
    method = RejectionSampling(rounds=1, n=4, reward_model=RewardModelling(FAST), schedule=FAST)
    found = []
    for attempt in ("first", "second"):
        lab, task = toy_cell(seed=5)
        method.align(task, lab)
        found.append(counted([cell_of(lab, tmp_path / attempt).read_cell("rest", 0)]))
    assert found[0] == found[1] is not None
    lines = {what: (count, of, among) for what, count, of, among in found[0]}
    drawn = [lab.sample(task.policy, task.prompts, n, stream=s) for n, s in ((4, "annotator"), (4, "round 0"))]
    drawn.append(lab.sample(task.policy, task.prompts, stream="reference"))
    cut = sum(rows["finish_reason"][:].count("length") for rows in drawn)
    assert lines["unfinished completions"] == (cut, 8 * 9, "completions") and cut > 0


def test_a_cell_of_an_older_version_says_that_it_did_not_count(toy_cell: ToyCell, tmp_path: Path) -> None:
    lab, task = toy_cell()
    lab.sample(task.policy, task.prompts, stream="a")
    assert counted([cell_of(lab, tmp_path / "new").read_cell("rest", 0)]) is not None
    for stage in lab.account.stages:
        del stage["met"]
    assert counted([cell_of(lab, tmp_path / "old").read_cell("rest", 0)]) is None
