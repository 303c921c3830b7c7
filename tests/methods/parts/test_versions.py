"""Versions: whom they sample, what they train on and from where, and what asking people again costs."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import toy_task
from known_reward import Known

from alignarena.core.contract import Schedule, Task
from alignarena.core.errors import BadInput
from alignarena.methods.parts.composition import Chain, Iterate
from alignarena.methods.parts.reward_modelling import RewardModelling
from alignarena.methods.parts.two_rewards import TwoRewardModels
from alignarena.methods.parts.versions import Version, Versioned, collected

FAST = Schedule(learning_rate=1e-2, num_train_epochs=2, batch_size=8)
N = 6
KNOWN = Version(n=N, fresh_prompts=0, reward_model=Known(), schedule=FAST)


@dataclass(frozen=True)
class Made:
    """A fit: what it started from, its rows, and the policy it gave."""

    start: str
    rows: list[dict[str, Any]]
    policy: Any


def watched(lab: Any) -> list[Made]:
    """Return what becomes a list of all fits."""
    seen: list[Made] = []
    fit = lab.fit

    def noting(policy: Any, experience: Any, loss: Any, schedule: Any) -> Any:
        made = fit(policy, experience, loss, schedule)
        seen.append(Made(policy.digest, experience.data.to_list(), made))
        return made

    lab.fit = noting
    lab.within = lambda fraction: lab  # there is no budget to share
    return seen


def test_every_version_starts_from_the_base_and_samples_the_latest_policy(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    fits = watched(lab)
    left = Iterate(KNOWN, 3).advance(task, lab)
    assert [fit.start for fit in fits] == [task.base.digest] * 3
    assert isinstance(left, Versioned) and len(left.drawn) == 3
    latest = [task.policy, *(fit.policy for fit in fits)]
    for number, rows in enumerate(left.drawn):
        again = lab.sample(latest[number], task.prompts, N, stream=f"version {number}")
        assert rows["completion_ids"][:] == again["completion_ids"][:]
    assert left.policy is latest[-1] and left.sft is task.policy


def test_what_is_trained_on_is_the_best_of_all_versions(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    fits = watched(lab)
    left = Iterate(KNOWN, 2).advance(task, lab)
    assert isinstance(left, Versioned)
    pool = [row for rows in left.drawn for row in rows.to_list() if row["finish_reason"] == "stop"]
    best: dict[str, float] = {}
    for row in pool:
        best[row["prompt_id"]] = max(best.get(row["prompt_id"], 0.0), toy_task.share(row["completion"]))
    rows = fits[1].rows
    assert {row["prompt_id"]: toy_task.share(row["completion"]) for row in rows} == best
    assert len(rows) == len(best) and {row["version"] for row in rows} <= {0, 1}
    assert [note["version"] for note in lab.account.notes] == [0.0, 1.0]
    assert lab.account.notes[0]["from_latest"] == 1.0 and 0 < lab.account.notes[1]["from_latest"] <= 1.0


@dataclass(frozen=True)
class Moody(RewardModelling):
    """Likes the other words once people have been asked again."""

    def fit(self, task: Any, lab: Any) -> Any:
        return toy_task.Favours(1.0 if len(task.preferences["overall"]) == 8 else -1.0)


def test_earlier_samples_are_scored_by_the_present_reward_model(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    fits = watched(lab)
    Iterate(replace(KNOWN, reward_model=Moody(), fresh_prompts=4), 2).align(task, lab)
    liked, disliked = ([toy_task.share(row["completion"]) for row in fit.rows] for fit in fits)
    assert sum(disliked) / len(disliked) < sum(liked) / len(liked) - 0.2
    assert any(row["version"] == 0 for row in fits[1].rows)


def test_unchanged_scores_are_paid_for_once(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    Iterate(KNOWN, 3).align(task, lab)
    scored = [stage["key"] for stage in lab.account.stages if stage["verb"] == "score"]
    assert len(scored) == 1 + 2 + 3 and len(set(scored)) == 3
    assert lab.account.charged.completions == 3 * 8 * N and lab.account.charged.labels == 0


def test_versions_climb_the_score(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    longer = replace(KNOWN, schedule=replace(FAST, num_train_epochs=8))
    policy = Iterate(longer, 2).align(task, lab)
    before, after = (
        sum(map(toy_task.share, lab.sample(one, task.prompts, 8, stream="evaluation")["completion"])) / 64
        for one in (task.policy, policy)
    )
    assert after > before + 0.1


def test_fresh_preferences_are_of_the_new_policy_and_are_paid_for(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    old = task.preferences["overall"]
    before = lab.account.charged.labels
    preferences = collected(task, task.policy, 5, 0, lab)
    rows = preferences["overall"].to_list()  # type: ignore[union-attr]
    assert len(old) == 8 and len(rows) == 13 and all(len(row["completions"]) == 4 for row in rows)
    assert lab.account.charged.labels - before == pytest.approx(5 * math.log2(24))
    drawn = lab.sample(task.policy, task.prompts, 4, stream="fresh 0").to_list()
    known = {(row["prompt_id"], row["completion"]) for row in drawn}
    assert all((row["prompt_id"], text) in known for row in rows[8:] for text in row["completions"])
    assert all(sorted(row["ranks"])[0] == 1 and len(row["margins"]) == 6 for row in rows[8:])


def test_the_next_reward_model_learns_old_and_fresh_preferences(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    fitted = []
    fit = lab.fit_reward_model

    def noting(start: Any, preferences: Any, loss: Any, schedule: Any) -> Any:
        fitted.append((start.digest, len(preferences)))
        return fit(start, preferences, loss, schedule)

    lab.fit_reward_model = noting
    lab.within = lambda fraction: lab
    version = replace(KNOWN, fresh_prompts=3, reward_model=TwoRewardModels(FAST, margin_scale=1.0))
    Iterate(version, 2).align(task, lab)
    assert fitted == [(task.policy.digest, 8), (task.policy.digest, 11)]
    assert lab.account.charged.labels == pytest.approx((8 + 2 * 3) * math.log2(24))


def test_axes_share_the_fresh_prompts(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    given = toy_task.two_axes(lab, task)
    preferences = collected(given, task.policy, 5, 0, lab)
    fresh = {axis: preferences[axis].to_list()[8:] for axis in ("helpful", "harmless")}  # type: ignore[union-attr]
    assert [len(rows) for rows in fresh.values()] == [3, 2]
    assert len({row["prompt_id"] for rows in fresh.values() for row in rows}) == 5
    assert lab.account.charged.labels == pytest.approx((16 + 5) * math.log2(24))


def test_one_fresh_prompt_is_of_one_axis(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    given = toy_task.two_axes(lab, task)
    preferences = collected(given, task.policy, 1, 0, lab)
    assert [len(preferences[axis]) for axis in ("helpful", "harmless")] == [9, 8]  # type: ignore[arg-type]


def test_nothing_is_asked_unless_wanted(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    assert collected(task, task.policy, 0, 0, lab) is task.preferences
    assert lab.account.stages == []


def test_who_cannot_be_asked_is_named(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    with pytest.raises(BadInput, match="by the axis 'overall': set fresh_prompts to 0"):
        collected(replace(task, annotator=None), task.policy, 2, 0, lab)
    with pytest.raises(BadInput, match="by the axis 'helpful'"):
        collected(replace(toy_task.two_axes(lab, task), annotators={}), task.policy, 2, 0, lab)


def test_what_a_stage_collected_reaches_the_next(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    given: list[Task] = []

    @dataclass(frozen=True)
    class Looks:
        def align(self, task: Task, lab: Any) -> Any:
            given.append(task)
            return task.policy

    Chain(Iterate(replace(KNOWN, fresh_prompts=2), 2), Looks()).align(task, lab)
    assert len(given[0].preferences["overall"]) == 8 + 2 * 2  # type: ignore[arg-type]
    assert given[0].sft is task.policy and given[0].base is task.base


def test_a_share_of_the_budget_leaves_the_next_stage_the_last_version(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell(completions=150)
    seen: list[Task] = []

    @dataclass(frozen=True)
    class Looks:
        def align(self, task: Task, lab: Any) -> Any:
            seen.append(task)
            return task.policy

    policy = Chain(Iterate(KNOWN, 4), Looks(), share=0.4).align(task, lab)  # 60: one version of 48, then 12 and no more
    assert policy is seen[0].policy and policy.digest != task.policy.digest
    assert lab.account.charged.completions < 150
