"""SFT: the shared start, at the price of the shared start."""

from collections.abc import Callable
from typing import Any

from alignarena.methods.sft import SFT


def test_sft_is_charged_its_training_and_nothing_else(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    policy = SFT().align(task, lab)
    assert policy is task.policy
    lab.settle(policy)
    charged = lab.account.charged
    assert charged.trained_tokens > 0
    assert charged.optimizer_steps == 8
    assert (charged.completions, charged.sampled_tokens, charged.scored_tokens, charged.labels) == (0, 0, 0, 0.0)
    assert not lab.account.stages  # the work itself was done elsewhere
    lab.settle(policy)
    assert lab.account.charged == charged


def test_sft_answers_end_more_often_than_the_base(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    ends = [
        lab.sample(policy, task.prompts, 4, stream="evaluation")["finish_reason"][:].count("stop")
        for policy in (task.base, SFT().align(task, lab))
    ]
    assert ends[1] > ends[0] + 8
