"""Llama 2's versions: the base model, trained again and again on the best of all that was ever sampled."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass

from datasets import Dataset, concatenate_datasets

from alignarena.core.contract import Judge, Lab, Policy, PreferenceStream, Rows, Schedule, Task
from alignarena.core.errors import BadInput
from alignarena.methods.parts.experience import Fixed
from alignarena.methods.parts.losses import SFTLoss
from alignarena.methods.parts.reward_modelling import RewardModelling
from alignarena.methods.parts.rows import best_of, finished, rankings
from alignarena.methods.parts.two_rewards import axes_of

Preferences = Mapping[str, Rows | PreferenceStream]


@dataclass(frozen=True)
class Versioned(Task):
    """A task with what the versions so far sampled: a data set a version, in order."""

    drawn: tuple[Rows, ...] = ()


@dataclass(frozen=True)
class Version:
    """Sample the latest policy, train on the best of all versions' samples, ask people about the policy this gives."""

    n: int  # completions a prompt
    fresh_prompts: int  # ranked by people after the version, for the next reward model
    reward_model: RewardModelling
    schedule: Schedule

    def align(self, task: Task, lab: Lab) -> Policy:
        """Return the version's policy."""
        return self.advance(task, lab).policy

    def advance(self, task: Task, lab: Lab) -> Versioned:
        """Return the task with the version's policy, its samples, and its preferences beside the earlier ones.

        All samples are scored by the present reward model: the scores of two do not compare.
        """
        earlier = task.drawn if isinstance(task, Versioned) else ()
        number, reward_model = len(earlier), self.reward_model.fit(task, lab)
        latest = lab.sample(task.policy, task.prompts, self.n, stream=f"version {number}")
        drawn = (*earlier, latest.add_column("version", [number] * len(latest)))
        best = best_of(finished(concatenate_datasets([lab.score(rows, reward_model) for rows in drawn])), lab)
        lab.note(version=number, prompts=len(best), from_latest=best["version"][:].count(number) / len(best))
        policy = lab.fit(task.base, Fixed(best), SFTLoss(), self.schedule)
        preferences = collected(task, policy, self.fresh_prompts, number, lab)
        return Versioned(**{**vars(task), "policy": policy, "preferences": preferences, "drawn": drawn})


def collected(task: Task, policy: Policy, prompts: int, number: int, lab: Lab) -> Preferences:
    """Return a task's preferences with fresh ones beside them: people's rankings of a policy's own completions.

    The axes share the prompts, so that a prompt is paid for once. Preferences without end need nothing beside them.

    Args:
        task: Whose annotators are asked.
        policy: What writes the completions: as many a prompt as were ranked before.
        prompts: How many prompts, drawn from those that are trained on.
        number: Of the version, so that every one asks about others.
        lab: Pays.

    Raises:
        BadInput: The people cannot be asked.
    """
    axes = axes_of(task.preferences)
    old = {axis: task.preferences[axis] for axis in axes if prompts}
    known = {axis: rows for axis, rows in old.items() if not isinstance(rows, PreferenceStream)}
    if not known:
        return task.preferences
    judges = [_annotator(task, axis) for axis in axes]
    chosen = lab.random("fresh", number).permutation(len(task.prompts))[:prompts]
    k = len(known[axes[0]][0]["completions"])
    drawn = rankings(lab.sample(policy, task.prompts.select(chosen), k, stream=f"fresh {number}"))
    parts = [drawn.select(range(place, len(drawn), len(axes))) for place in range(len(axes))]
    asked = zip(axes, judges, parts, strict=True)
    fresh = {axis: _joined(known[axis], lab.prefer(part, judge)) for axis, judge, part in asked if len(part)}
    return ChainMap(fresh, task.preferences)  # type: ignore[arg-type]  # it reads only: no other axis is paid for


def _annotator(task: Task, axis: str) -> Judge:
    judge = task.annotator if axis == "overall" else task.annotators.get(axis)
    if judge is None:
        raise BadInput(f"nobody can be asked to rank fresh completions by the axis {axis!r}: set fresh_prompts to 0")
    return judge


def _joined(old: Rows, fresh: Rows) -> Rows:
    rows = [*old.to_list(), *fresh.to_list()]
    names = list(dict.fromkeys(name for row in rows for name in row))
    return Dataset.from_list([{name: row.get(name) for name in names} for row in rows])
