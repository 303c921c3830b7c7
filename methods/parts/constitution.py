"""What Constitutional AI is made of: revisions to imitate, and a reward model of comparisons under principles."""

from __future__ import annotations

from typing import Any

from datasets import Dataset

from alignarena.core.contract import Lab, PreferenceStream, Rows, Schedule, Scorer, Task
from alignarena.core.errors import BadInput, RunFailed
from alignarena.core.feedback import about_harm
from alignarena.evaluators.constitution import draw
from alignarena.evaluators.verdicts import preference
from alignarena.methods.parts.labels import compared, differing, judge_of, oracle_of, reward_of
from alignarena.methods.parts.rows import finished, pairs, rankings

_IMITATED = ("prompt_id", "prompt", "completion", "completion_ids")  # a revision has no ids


def by_kind(prompts: Rows) -> tuple[Rows, Rows]:
    """Return the prompts that are about harm, and the others; in a task without red-team prompts, all and none."""
    asked = about_harm(prompts)
    if not any(asked):
        return prompts, prompts.select([])
    return tuple(prompts.select([i for i, one in enumerate(asked) if one == kind]) for kind in (True, False))


def drawn_prompts(prompts: Rows, count: int | None, lab: Lab) -> Rows:
    """Return so many of the prompts, drawn without replacement; all where there are no more, or no number is given."""
    if count is None or count >= len(prompts):
        return prompts
    return prompts.select(sorted(lab.random("prompts to revise").permutation(len(prompts))[:count].tolist()))


def revisions(task: Task, prompts: Rows, lab: Lab, steps: int) -> Rows:
    """Return all revisions of one answer of the policy to every prompt; the answers themselves are not among them.

    Every step revises what the one before it left. Where no revision came out, the step gives no row.

    Raises:
        BadInput: The task has no reviser or no principles.
        RunFailed: No revision came out at all.
    """
    if task.reviser is None or not task.principles:
        raise BadInput("this task has no reviser or no principles; leave constitutional_ai out")
    rows, kept = lab.sample(task.policy, prompts, stream="to revise"), []
    for step in range(1, steps + 1):
        rows = lab.revise(rows, task.reviser, task.principles, stream=f"revision {step}")
        made = [row for row in rows.to_list() if row["revised"]]
        kept += made
        shares = {"made": len(made) / len(rows), "changed": sum(row["changed"] for row in made) / len(rows)}
        lab.note(step=step, **{f"revision/{name}": share for name, share in shares.items()})
    if not kept:
        raise RunFailed(f"the reviser rewrote none of {len(rows)} completions: there is nothing to imitate")
    return Dataset.from_list(kept)


def imitated(task: Task, prompts: tuple[Rows, Rows], lab: Lab, steps: int, helpful: int) -> Rows:
    """Return what the supervised stage imitates: revisions, and so many answers of the policy to each other prompt.

    The answers end by themselves; those that are cut are left out.
    """
    to_revise, others = prompts
    rows = _texts(revisions(task, to_revise, lab, steps))
    if len(others) and helpful:
        rows += _texts(finished(lab.sample(task.policy, others, helpful, stream="helpful")))
    return Dataset.from_list(rows)


def preference_model(task: Task, prompts: tuple[Rows, Rows], lab: Lab, clamp: float, schedule: Schedule) -> Scorer:
    """Return a reward model of what the labeler prefers by a principle a comparison, and people for helpfulness.

    The labeler compares two completions of the policy for each prompt of the first kind. People's preferences of the
    axis ``helpful`` join where the task has that axis and prompts of both kinds.

    Raises:
        BadInput: The task has no labeler that compares, or preferences without end on one side only.
        RunFailed: There is nothing to learn from the labels.
    """
    oracle = oracle_of(task)
    if oracle is not None:
        return oracle
    drawn = differing(rankings(lab.sample(task.policy, prompts[0], 2, stream="labeler")))
    answers = compared(under_principles(drawn, task, lab), judge_of(task), lab)
    learnt = pairs(clamped(answers, clamp)).to_list()
    if len(prompts[1]) and "helpful" in task.preferences:
        learnt += [{"probability": 1.0, **pair} for pair in _of_people(task.preferences["helpful"])]
    return reward_of(_of_common_columns(learnt), task, lab, True, schedule)


def under_principles(rows: Rows, task: Task, lab: Lab) -> Rows:
    """Add the ``principle`` that each row is compared by, drawn for each."""
    drawn = [draw(task.principles, lab, "comparison", prompt_id).criterion for prompt_id in rows["prompt_id"][:]]
    return rows.add_column("principle", drawn)


def clamped(answers: Rows, most: float) -> Rows:
    """Keep the probabilities of a labeler that thought first within 1 - ``most`` and ``most``.

    Having argued for a side it is nearly certain of it, right or wrong (Bai et al., 2022, section 4.1). Labels read off
    without a rationale are left as they are.
    """
    if "rationales" not in answers.column_names:
        return answers
    rows = answers.to_list()
    return Dataset.from_list([{**row, **preference(min(max(row["probability"], 1 - most), most))} for row in rows])


def _of_people(preferences: Rows | PreferenceStream) -> list[dict[str, Any]]:
    if isinstance(preferences, PreferenceStream):
        raise BadInput("people's preferences have no end and the labeler's have: they cannot be mixed; take a labeler "
                       "with an oracle, or feedback.annotator 'simulated'")  # fmt: skip
    return pairs(preferences).to_list()  # type: ignore[no-any-return]


def _of_common_columns(rows: list[dict[str, Any]]) -> Rows:
    common = set.intersection(*(set(row) for row in rows))
    return Dataset.from_list([{name: row[name] for name in rows[0] if name in common} for row in rows])


def _texts(rows: Rows) -> list[dict[str, Any]]:
    return [{name: row.get(name) for name in _IMITATED} for row in rows.to_list()]
