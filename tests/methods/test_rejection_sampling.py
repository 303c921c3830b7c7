"""Rejection sampling: what it trains on depends on the order of the scores, and on finished completions only."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import toy_task

from alignarena.core.contract import Schedule, Scorer
from alignarena.methods.parts.reward_modelling import RewardModelling
from alignarena.methods.parts.rows import by_prompt
from alignarena.methods.rejection_sampling import RejectionSampling

PLAIN = toy_task.Favours()
FAST = Schedule(learning_rate=1e-2, num_train_epochs=2, batch_size=8)


@dataclass(frozen=True)
class Given(RewardModelling):
    """A known scorer where a reward model would be fitted."""

    scorer: Scorer = PLAIN

    def fit(self, task: Any, lab: Any) -> Any:
        return self.scorer


def trained_on(
    lab: Any, task: Any, scorer: Scorer = PLAIN, rounds: int = 1, schedule: Schedule = FAST
) -> tuple[Any, list[list[dict[str, Any]]]]:
    """Run the method; return its policy and the rows of each fit."""
    seen, fit = [], lab.fit

    def noting(policy: Any, experience: Any, loss: Any, schedule: Any) -> Any:
        seen.append(experience.data.to_list())
        return fit(policy, experience, loss, schedule)

    lab.fit = noting
    method = RejectionSampling(rounds=rounds, n=6, reward_model=Given(scorer=scorer), schedule=schedule)
    return method.align(task, lab), seen


def test_it_trains_on_the_best_finished_completion_of_each_prompt(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    _, (rows,) = trained_on(lab, task)
    drawn = lab.sample(task.policy, task.prompts, 6, stream="round 0")
    assert 0 < drawn["finish_reason"][:].count("stop") < len(drawn)
    finished = [[row for row in group if row["finish_reason"] == "stop"] for group in by_prompt(drawn)]
    best = [max(toy_task.share(row["completion"]) for row in group) for group in finished if group]
    assert [toy_task.share(row["completion"]) for row in rows] == best
    assert [row["prompt_id"] for row in rows] == [group[0]["prompt_id"] for group in finished if group]
    assert all(row["finish_reason"] == "stop" for row in rows)


@pytest.mark.parametrize(
    "scorer", [toy_task.Favours(shift=100.0), toy_task.Favours(scale=0.25), toy_task.Favours(bent=True)]
)
def test_only_the_order_of_the_scores_matters(toy_cell: Callable[..., Any], scorer: Scorer) -> None:
    lab, task = toy_cell()
    again, same = toy_cell()
    _, (plain,) = trained_on(lab, task)
    _, (changed,) = trained_on(again, same, scorer)

    def ids(rows: list[dict[str, Any]]) -> list[tuple[str, int]]:
        return [(row["prompt_id"], row["sample"]) for row in rows]

    assert ids(plain) == ids(changed)


def test_each_round_samples_the_latest_policy(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    policy, rounds = trained_on(lab, task, rounds=2)
    assert len(rounds) == 2
    samples = [stage for stage in lab.account.stages if stage["verb"] == "sample"]
    assert [stage["stage"] for stage in samples] == ["sample round 0", "sample round 1"]
    assert lab.account.charged.completions == 2 * 8 * 6
    assert policy is lab.account.last_policy
    assert policy.digest != task.policy.digest


def test_it_climbs_the_score(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    policy, _ = trained_on(lab, task, rounds=3, schedule=replace(FAST, num_train_epochs=6))
    before, after = (
        sum(map(toy_task.share, lab.sample(one, task.prompts, 8, stream="evaluation")["completion"])) / 64
        for one in (task.policy, policy)
    )
    assert after > before + 0.1


def test_with_a_fitted_reward_model_it_samples_and_pays(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    reward_model = RewardModelling(Schedule(learning_rate=1e-2, batch_size=8))
    policy = RejectionSampling(rounds=1, n=4, reward_model=reward_model, schedule=FAST).align(task, lab)
    assert [stage["verb"] for stage in lab.account.stages] == [
        "sample", "prefer", "fit_reward_model", "sample", "score", "sample", "score", "fit",
    ]  # fmt: skip
    assert lab.account.charged.labels > 0
    assert len(lab.sample(policy, task.prompts, stream="evaluation")) == 8
