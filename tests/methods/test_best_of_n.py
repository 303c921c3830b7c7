"""Best-of-n: a recipe whose work is done at every answer."""

from collections.abc import Callable
from math import log
from typing import Any

import pytest
import toy_task

from alignarena.methods.best_of_n import BestOfN, BestOfNPolicy
from alignarena.methods.parts.rows import by_prompt


def test_each_answer_is_the_best_of_its_own_draws(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    policy = BestOfNPolicy(task.policy, toy_task.Favours(), 3)
    answers = lab.sample(policy, task.prompts, 2, stream="evaluation")
    drawn = lab.sample(task.policy, task.prompts, 6, stream="evaluation candidates")
    for chosen, group in zip(by_prompt(answers), by_prompt(drawn), strict=True):
        for answer, candidates in zip(chosen, (group[:3], group[3:]), strict=True):
            assert answer["completion"] in [row["completion"] for row in candidates]
            assert toy_task.share(answer["completion"]) == max(toy_task.share(row["completion"]) for row in candidates)
            assert answer["inference_tokens"] == sum(len(row["completion_ids"]) for row in candidates)
        assert [answer["sample"] for answer in chosen] == [0, 1]
    assert "score" not in answers.column_names


def test_no_candidate_is_an_answer_it_is_compared_with(toy_cell: Callable[..., Any]) -> None:
    """Drawn by the same random numbers, the first of four would be SFT's own answer and tie: .875 of wins, not .8."""
    lab, task = toy_cell()
    first = lab.sample(BestOfNPolicy(task.policy, toy_task.Favours(), 1), task.prompts, 4, stream="evaluation")
    plain = lab.sample(task.policy, task.prompts, 4, stream="evaluation")
    assert sum(a == b for a, b in zip(first["completion"][:], plain["completion"][:], strict=True)) < 4


def test_answers_cost_n_times_the_sampling_and_a_scoring(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    lab.settle(task.policy)
    before = lab.account.charged
    lab.sample(task.policy, task.prompts, 2, stream="plain")
    plain = lab.account.charged
    policy = BestOfN(n=4).align(task, lab)
    aligned = lab.account.charged
    answers = lab.sample(policy, task.prompts, 2, stream="plain")
    assert plain.completions - before.completions == 16
    assert lab.account.charged.completions - aligned.completions == 64
    assert sum(answers["inference_tokens"]) == lab.account.charged.sampled_tokens - aligned.sampled_tokens
    assert lab.account.charged.scored_tokens > aligned.scored_tokens
    assert lab.account.charged.trained_tokens == aligned.trained_tokens > before.trained_tokens  # the reward model's


def test_of_one_it_is_the_policy_inside(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    policy = BestOfNPolicy(task.policy, toy_task.Favours(), 1)
    answers = lab.sample(policy, task.prompts, 2, stream="evaluation")
    plain = lab.sample(task.policy, task.prompts, 2, stream="evaluation candidates")
    assert answers["completion"][:] == plain["completion"][:]
    assert policy.kl_bound == 0.0


def test_its_kl_is_bounded(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    policy = BestOfN(n=4).align(task, lab)
    assert policy.kl_bound == pytest.approx(log(4) - 3 / 4)  # type: ignore[attr-defined]
    assert policy.digest != BestOfN(n=8).align(task, lab).digest
    assert policy.digest == BestOfN(n=4).align(task, lab).digest
