"""RLAIF: labels by a labeler, a reward model of them, REINFORCE or PPO; direct RLAIF; what they pay."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
import toy_task
from datasets import Dataset
from loss_batches import NLS, close
from toy_labeler import ToyLabeler, with_labeler

from alignarena.core.contract import Batch, Schedule
from alignarena.core.errors import BadInput, RunFailed
from alignarena.evaluators.verdicts import preference
from alignarena.methods.d_rlaif import DirectRLAIF
from alignarena.methods.parts.labels import differing, quality
from alignarena.methods.parts.policy_gradient import PPOLoss
from alignarena.methods.parts.reinforce import ReinforceLoss
from alignarena.methods.parts.reward_losses import PairwiseRewardLoss
from alignarena.methods.parts.rows import pairs
from alignarena.methods.rlaif import RLAIF

FIT = Schedule(learning_rate=1e-2, batch_size=8, num_train_epochs=4)
STEPS = Schedule(learning_rate=1e-2, batch_size=8, adam_epsilon=1e-5)
FAST = RLAIF(
    reinforce=ReinforceLoss(kl_coef=0.02), updates=3, prompts_per_update=8, n=2, reward_schedule=FIT, schedule=STEPS
)
LEARNS = {"updates": 12, "prompts_per_update": 8, "n": 4, "schedule": STEPS}
VERBS = ["sample", "prefer", "fit_reward_model", "sample", "score", "fit"]


def curve(policy: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (policy.folder / "metrics.jsonl").read_text().splitlines()]


def favoured(lab: Any, policy: Any, task: Any) -> float:
    texts = lab.sample(policy, task.prompts, 8, stream="evaluation")["completion"]
    return sum(map(toy_task.share, texts)) / len(texts)


# -- labels -----------------------------------------------------------------------------------------------------------


def soft_batch(*probabilities: float) -> Batch:
    return Batch(mask={}, columns={"probability": torch.tensor(probabilities, dtype=torch.float64)})


def gaps(*values: float) -> dict[str, torch.Tensor]:
    return {"chosen": torch.tensor(values, dtype=torch.float64), "rejected": torch.zeros(len(values))}


def test_soft_reward_loss_by_hand() -> None:
    loss, metrics = PairwiseRewardLoss(soft=True)(gaps(2.0, -1.0, 0.0), soft_batch(0.75, 0.75, 0.9))
    # .75 x -log sigmoid(2) + .25 x -log sigmoid(-2); the same at -1 and 1; log 2 at an even gap, whatever the label
    close(loss, 0.75 * NLS[2] + 0.25 * NLS[-2], 0.75 * NLS[-1] + 0.25 * NLS[1], NLS[0])
    close(metrics["accuracy"], 1.0, 0.0, 0.5)
    assert PairwiseRewardLoss(soft=True, margin=True).columns == {"probability", "margin"}


def test_t4_soft_labels_do_not_mind_the_order_and_hard_ones_are_bradley_terry() -> None:
    soft, there = PairwiseRewardLoss(soft=True), gaps(2.0, -1.0, 0.5)
    back = {"chosen": there["rejected"], "rejected": there["chosen"]}
    torch.testing.assert_close(soft(there, soft_batch(0.8, 0.3, 0.6))[0], soft(back, soft_batch(0.2, 0.7, 0.4))[0])
    torch.testing.assert_close(soft(there, soft_batch(1, 1, 1))[0], PairwiseRewardLoss()(there, Batch(mask={}))[0])
    torch.testing.assert_close(soft(there, soft_batch(0, 0, 0))[0], PairwiseRewardLoss()(back, Batch(mask={}))[0])


def test_a_soft_reward_model_is_best_at_the_log_odds_of_its_label() -> None:
    gap = torch.tensor([1.0986123], dtype=torch.float64, requires_grad=True)  # log 3: the odds of .75
    outputs = {"chosen": gap, "rejected": torch.zeros(1, dtype=torch.float64)}
    loss, _ = PairwiseRewardLoss(soft=True)(outputs, soft_batch(0.75))
    loss.sum().backward()
    assert gap.grad is not None and abs(float(gap.grad)) < 1e-7


def answers(*probabilities: float, **more: Any) -> Dataset:
    texts = {"prompt": "say", "completions": ["a", "b"]}
    return Dataset.from_list([{"prompt_id": str(i), **texts, **preference(p)} for i, p in enumerate(probabilities)])


def test_pairs_keep_the_probability_of_the_chosen_side_and_drop_ties() -> None:
    made = pairs(answers(0.75, 0.5, 0.25)).to_list()
    assert [(row["chosen"], row["probability"]) for row in made] == [("a", 0.75), ("b", 0.75)]


def test_quality_says_what_needs_no_other_labels() -> None:
    orders = [[0.9, 0.2], [0.8, 0.7], [0.3, 0.4], [0.6, 0.9]]  # consistent; first place twice; second place twice
    rows = answers(0.85, 0.55, 0.45, 0.35).add_column("orders", orders)
    assert quality(rows) == pytest.approx(
        {"pairs": 4, "ties": 0, "confidence": (0.7 + 0.1 + 0.1 + 0.3) / 4, "consistency": 0.25, "position_bias": 0.25}
    )
    assert quality(answers(0.5, 1.0)) == {"pairs": 2, "ties": 0.5, "confidence": 0.5}


def test_equal_completions_are_not_worth_a_call() -> None:
    texts = [["a", "a"], ["a", "b"]]
    rows = Dataset.from_list([{"prompt_id": str(i), "completions": both} for i, both in enumerate(texts)])
    assert differing(rows)["prompt_id"] == ["1"]
    with pytest.raises(RunFailed, match="both completions of each of 1 prompts are equal"):
        differing(rows.select([0]))


# -- the methods ------------------------------------------------------------------------------------------------------


def test_rlaif_pays_calls_and_not_one_label(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    policy = FAST.align(with_labeler(task), lab)
    assert [stage["verb"] for stage in lab.account.stages] == VERBS
    compared = lab.account.notes[0]["labeler/pairs"]
    assert lab.account.charged.labeler_calls == 2 * compared > 0
    assert lab.account.charged.labels == 0
    assert 0 < lab.account.notes[0]["labeler/confidence"] < 1
    fit = lab.account.stages[-1]["ledger"]
    assert (fit["prompts"], fit["completions"], fit["optimizer_steps"]) == (24, 48, 3)
    first = curve(policy)[0]
    assert first["approxkl"] == 0.0 and first["objective/kl"] == pytest.approx(0, abs=1e-4)
    assert first["objective/explained_variance"] == pytest.approx(0, abs=1e-6)  # values start from SFT: all are 0


def test_pairs_say_whose_labels_they_are() -> None:
    assert pairs(answers(0.75).add_column("lineage", [["toy labeler"]]))["lineage"] == [["toy labeler"]]


def test_rlaif_climbs_its_reward_model(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell(seed=1)
    scores = [line["objective/scores"] for line in curve(replace(FAST, **LEARNS).align(with_labeler(task), lab))]
    assert sum(scores[-3:]) / 3 > sum(scores[:3]) / 3 + 0.3  # standardised on samples of the start


def test_direct_rlaif_learns_what_the_labeler_likes(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    aligned = DirectRLAIF(ReinforceLoss(kl_coef=0.02), **LEARNS).align(with_labeler(task), lab)
    assert favoured(lab, aligned, task) > favoured(lab, task.policy, task) + 0.1


def test_ppo_may_be_the_optimiser(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    policy = replace(FAST, optimiser="ppo", ppo=PPOLoss(kl_coef=0.02)).align(with_labeler(task), lab)
    assert {"clipfrac", "ratio"} <= curve(policy)[0].keys()
    assert FAST.loss == FAST.reinforce and replace(FAST, optimiser="ppo").loss == FAST.ppo


def test_hard_labels_need_no_probability(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    replace(FAST, soft=False).align(with_labeler(task), lab)
    assert [stage["verb"] for stage in lab.account.stages] == VERBS


def test_a_labeler_known_without_end_is_its_own_reward_model(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    FAST.align(with_labeler(task, ToyLabeler(oracle=toy_task.Favours())), lab)
    assert [stage["verb"] for stage in lab.account.stages] == ["fit"]
    assert lab.account.charged.labeler_calls == 0


def test_direct_rlaif_pays_a_call_a_completion_and_fits_no_reward_model(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    DirectRLAIF(updates=3, prompts_per_update=8, n=2, schedule=STEPS).align(with_labeler(task), lab)
    assert [stage["verb"] for stage in lab.account.stages] == ["fit"]
    assert lab.account.charged.labeler_calls == 48 and lab.account.charged.labels == 0


def test_a_budget_of_calls_ends_direct_rlaif_with_the_policy_it_has(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell(labeler_calls=30)
    policy = DirectRLAIF(updates=10, prompts_per_update=8, n=2, schedule=STEPS).align(with_labeler(task), lab)
    assert lab.account.stages[-1]["stopped"] == "budget"
    assert 0 < len(curve(policy)) < 10


@dataclass(frozen=True)
class OnlyJudges:
    """A labeler that can't score."""

    certainty: float = 8.0
    writer: Any = None
    oracle: Any = None
    lineage: frozenset[str] = frozenset({"toy labeler"})

    def calls(self, completions: int) -> int:
        return 2

    def prefer(self, rows: Any, lab: Any) -> Any:
        return ToyLabeler(self.certainty).prefer(rows, lab)


def test_a_labeler_without_an_opinion_fails_the_run_and_says_so(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    with pytest.raises(RunFailed, match="the labeler prefers neither completion of any of"):
        FAST.align(with_labeler(task, ToyLabeler(certainty=0.0)), lab)


def test_a_task_without_the_labeler_needed_is_refused(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    with pytest.raises(BadInput, match="no AI labeler that compares"):
        FAST.align(task, lab)
    with pytest.raises(BadInput, match="no AI labeler that scores"):
        DirectRLAIF().align(with_labeler(task, OnlyJudges()), lab)
