"""Online DPO: pairs of the policy's own samples, made anew in each phase."""

import json
from collections.abc import Callable
from dataclasses import replace
from math import log
from typing import Any

import pytest
import toy_task
from datasets import Dataset
from known_reward import Known

from alignarena.core.contract import Schedule
from alignarena.core.errors import RunFailed
from alignarena.methods.online_dpo import OnlineDPO
from alignarena.methods.parts.experience import ComparedByScore
from alignarena.methods.parts.reward_modelling import RewardModelling
from alignarena.paper_lab import PaperLab

REWARD = RewardModelling(Schedule(learning_rate=1e-2, batch_size=8, num_train_epochs=4))
FAST = OnlineDPO(
    updates=3, prompts_per_update=8, reward_model=REWARD, schedule=Schedule(learning_rate=1e-2, batch_size=4)
)


def curve(policy: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (policy.folder / "metrics.jsonl").read_text().splitlines()]


def sampled(*texts: str, cut: tuple[int, ...] = ()) -> Any:
    """Rows of two completions a prompt."""
    return Dataset.from_list(
        [
            {"prompt_id": f"p{i // 2}", "prompt": "w1", "prompt_ids": [1], "sample": i % 2, "completion": text,
             "completion_ids": [int(word[1:]) for word in text.split()],
             "finish_reason": "length" if i in cut else "stop"}
            for i, text in enumerate(texts)
        ]
    )  # fmt: skip


# favoured words are those below w100: shares 0, 1, 1/2 and 1/2
TEXTS = ("w200 w201", "w1 w2", "w3 w200", "w201 w4")


def test_the_better_scored_of_two_is_chosen_and_a_tie_says_nothing() -> None:
    pairs = ComparedByScore(toy_task.Favours(), 0.0, soft=False).rows(sampled(*TEXTS), PaperLab())
    assert pairs.to_list() == [
        {"prompt_id": "p0", "prompt": "w1", "prompt_ids": [1], "chosen": "w1 w2", "chosen_ids": [1, 2],
         "rejected": "w200 w201", "rejected_ids": [200, 201], "margin": 1.0, "score": 0.5}
    ]  # fmt: skip


def test_soft_labels_are_the_sigmoid_of_the_scores_difference_and_ties_one_half() -> None:
    pairs = ComparedByScore(toy_task.Favours(scale=log(3)), 0.0, soft=True).rows(sampled(*TEXTS), PaperLab())
    assert pairs["probability"][:] == pytest.approx([0.75, 0.5])  # 3 / (1 + 3)
    assert pairs["chosen"][:] == ["w1 w2", "w3 w200"]


def test_a_completion_that_does_not_end_is_worth_less() -> None:
    pairs = ComparedByScore(toy_task.Favours(), 1.5, soft=False).rows(sampled(*TEXTS, cut=(1, 3)), PaperLab())
    assert pairs["rejected"][:] == ["w1 w2", "w201 w4"]
    assert pairs["margin"][:] == pytest.approx([0.5, 1.5])
    assert pairs["score"][:] == pytest.approx([0.5, 0.5])  # without the penalty


@pytest.mark.parametrize("soft", [False, True])
def test_completions_that_are_all_equal_end_in_one_clear_line(soft: bool) -> None:
    with pytest.raises(RunFailed, match="prefers neither completion of any of 1 prompts"):
        ComparedByScore(toy_task.Favours(), 0.0, soft).rows(sampled("w1 w2", "w1 w2"), PaperLab())


def test_online_dpo_is_charged_for_its_rollouts(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    lines = curve(FAST.align(task, lab))
    verbs = [stage["verb"] for stage in lab.account.stages]
    assert verbs == ["sample", "prefer", "fit_reward_model", "sample", "score", "fit"]
    fit = lab.account.stages[-1]["ledger"]
    assert (fit["prompts"], fit["completions"]) == (24, 48)
    assert fit["optimizer_steps"] == len(lines) == 6
    assert all(6 <= line["objective/pairs"] <= 8 for line in lines)  # ties and equal completions are not among them
    assert lines[0]["loss"] == pytest.approx(log(2), abs=1e-6)


@pytest.mark.parametrize("soft", [False, True])
def test_online_dpo_climbs_the_score(toy_cell: Callable[..., Any], soft: bool) -> None:
    lab, task = toy_cell()
    known, schedule = Known(scorer=toy_task.Favours(scale=5.0)), Schedule(learning_rate=5e-3, batch_size=8)
    policy = replace(FAST, updates=90, soft=soft, reward_model=known, schedule=schedule).align(task, lab)
    before, after = (
        sum(map(toy_task.share, lab.sample(one, task.prompts, 32, stream="evaluation")["completion"])) / 256
        for one in (task.policy, policy)
    )
    assert after > before + 0.2


def test_a_budget_ends_online_dpo_with_the_policy_it_has(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell(sampled_tokens=600)
    policy = replace(FAST, updates=20).align(task, lab)
    assert lab.account.stages[-1]["stopped"] == "budget"
    assert 0 < len(curve(policy)) < 40
