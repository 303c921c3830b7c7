"""Labels of an AI labeler: asking for them, how far they can be relied on, and a reward model of them."""

from __future__ import annotations

import numpy as np

from alignarena.core.contract import Judge, Lab, Labeler, Policy, Rows, Schedule, Scorer, Task
from alignarena.core.errors import BadInput, RunFailed
from alignarena.core.feedback import standardised
from alignarena.methods.parts.instructions import Instructed
from alignarena.methods.parts.reward_losses import PairwiseRewardLoss
from alignarena.methods.parts.rows import pairs, rankings


def judge_of(task: Task) -> Judge:
    """Return the task's labeler, if it compares.

    Raises:
        BadInput: There is none, or it does not.
    """
    if not isinstance(task.labeler, Judge):
        raise BadInput("this task has no AI labeler that compares completions; leave out methods that ask one")
    return task.labeler


def scorer_of(task: Task) -> Scorer:
    """Return the task's labeler, if it scores.

    Raises:
        BadInput: There is none, or it does not.
    """
    if not isinstance(task.labeler, Scorer):
        raise BadInput("this task has no AI labeler that scores a completion; leave out methods that ask one")
    return task.labeler


def writer_of(task: Task) -> Policy:
    """Return the labeler's language model, told the goal where the task names one, as a policy that answers prompts.

    Raises:
        BadInput: There is no labeler, or it is a program.
    """
    writer = task.labeler.writer if isinstance(task.labeler, Labeler) else None
    if writer is None:
        raise BadInput("this task has no AI labeler, or it is a program, which only judges and writes nothing to learn "
                       "from; leave labeler_distillation out")  # fmt: skip
    return Instructed(writer, task.goal) if task.goal else writer


def labelled(task: Task, lab: Lab) -> Rows:
    """Compare two completions of the policy for every prompt, by the task's labeler.

    Equal completions are not worth a call. Says first how far the labels can be relied on (``quality``).

    Raises:
        BadInput: The labeler does not compare.
        RunFailed: The completions of every prompt are equal, or the labeler prefers none of them.
    """
    judge = judge_of(task)
    drawn = rankings(lab.sample(task.policy, task.prompts, 2, stream="labeler"))
    return compared(differing(drawn), judge, lab)


def compared(rows: Rows, judge: Judge, lab: Lab) -> Rows:
    """Have a labeler compare the completions of each row, and note how far its labels can be relied on.

    Raises:
        RunFailed: It prefers none of them.
    """
    answers = lab.prefer(rows, judge)
    found = quality(answers)
    lab.note(**{f"labeler/{name}": value for name, value in found.items()})
    if found["ties"] == 1.0:
        raise RunFailed(f"the labeler prefers neither completion of any of {len(answers)} prompts: labels say nothing")
    return answers


def differing(rows: Rows) -> Rows:
    """Keep pairs whose completions differ.

    Raises:
        RunFailed: None do.
    """
    kept = [i for i, texts in enumerate(rows["completions"][:]) if texts[0] != texts[1]]
    if not kept:
        raise RunFailed(f"both completions of each of {len(rows)} prompts are equal: there is nothing to compare")
    return rows.select(kept)


def quality(answers: Rows) -> dict[str, float]:
    """Say of a labeler what can be known without anybody else's labels.

    Returns:
        ``pairs`` it compared; ``ties``, the share it calls even; ``confidence``, the mean of ``|2 p - 1|``. Where it
        was shown both orders: ``consistency``, the share of pairs whose winner does not depend on the order, and
        ``position_bias``, the share in which the first place wins both times less that in which the second does.
    """
    probability = np.array(answers["probability"])
    ties, confidence = (probability == 0.5).mean(), np.abs(2 * probability - 1).mean()
    found = {"pairs": len(answers), "ties": ties, "confidence": confidence}
    if "orders" in answers.column_names:
        first = np.array(answers["orders"])
        found["consistency"] = ((first[:, 0] > 0.5) == (first[:, 1] < 0.5)).mean()
        found["position_bias"] = (first > 0.5).all(1).mean() - (first < 0.5).all(1).mean()
    return {name: float(value) for name, value in found.items()}


def distilled(task: Task, lab: Lab, soft: bool, schedule: Schedule) -> Scorer:
    """Fit a reward model to a labeler's preferences, with mean 0 and deviation 1 on samples of the SFT policy.

    Of a labeler whose preferences are known without end it is the labeler's oracle, which has a scale already.

    Args:
        task: What is aligned.
        lab: What does the work.
        soft: Whether it learns how probable each preference is, or only which it is.
        schedule: Of the fit.

    Raises:
        BadInput: The task has no labeler that compares.
        RunFailed: There is nothing to learn from its labels.
    """
    oracle = oracle_of(task)
    return oracle if oracle is not None else reward_of(pairs(labelled(task, lab)), task, lab, soft, schedule)


def oracle_of(task: Task) -> Scorer | None:
    """Return what a reward model of all preferences of the task's labeler would be, where that is known.

    Raises:
        BadInput: The task has no labeler that compares.
    """
    oracle: Scorer | None = getattr(judge_of(task), "oracle", None)
    return oracle


def reward_of(preferences: Rows, task: Task, lab: Lab, soft: bool, schedule: Schedule) -> Scorer:
    """Fit a reward model to pairs, with mean 0 and deviation 1 on samples of the SFT policy."""
    start = task.sft or task.policy
    reward_model = lab.fit_reward_model(start, preferences, PairwiseRewardLoss(soft=soft), schedule)
    references = lab.sample(start, task.prompts, stream="reference")
    return standardised(reward_model, lab.score(references, reward_model)["score"])
