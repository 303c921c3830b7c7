"""Constitutional AI on the toy task: what it does in which order, what it pays, that it learns, and what it refuses."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import toy_task
from datasets import Dataset
from toy_labeler import ToyLabeler, with_labeler

from alignarena.core.contract import Principle, Rows, Sampling, Schedule, Task
from alignarena.core.errors import BadInput
from alignarena.evaluators.reviser import LanguageReviser, revised
from alignarena.methods.constitutional_ai import ConstitutionalAI
from alignarena.methods.parts.policy_gradient import PPOLoss

FIT = Schedule(learning_rate=1e-2, batch_size=8, num_train_epochs=4)
STEPS = Schedule(learning_rate=1e-2, batch_size=8, adam_epsilon=1e-5)
FAST = ConstitutionalAI(
    revisions=2, start="sft", loss=PPOLoss(kl_coef=0.02), updates=2, prompts_per_update=8, n=2, supervised=FIT,
    reward_schedule=FIT, schedule=STEPS,
)  # fmt: skip
PRINCIPLES = (Principle("first?", "favour the first"), Principle("last?", "favour the last"))


@dataclass(frozen=True)
class ToyReviser:
    """Puts a favoured word in place of the first or the last one, as the principle says."""

    def revise(self, rows: Rows, principles: tuple[Principle, ...], lab: Any, *, stream: str) -> Rows:
        made = []
        for row in rows.to_list():
            draw = lab.random("toy", stream, row["prompt_id"])
            words, place = row["completion"].split(), int(draw.integers(2)) - 1
            if words:
                words[place] = f"w{draw.integers(100)}"
            made.append(revised(row, principles[place + 1], "seen", " ".join(words) or None))
        return Dataset.from_list(made)


def constitutional(task: Task, **fields: Any) -> Task:
    return replace(with_labeler(task), **{"reviser": ToyReviser(), "principles": PRINCIPLES, **fields})


def of_kinds(task: Task) -> Task:
    rows = [{**row, "kind": "ordinary" if i % 2 else "red_team"} for i, row in enumerate(task.prompts)]
    return replace(task, prompts=Dataset.from_list(rows))


def favoured(lab: Any, policy: Any, task: Task) -> float:
    texts = lab.sample(policy, task.prompts, 8, stream="evaluation")["completion"]
    return sum(map(toy_task.share, texts)) / len(texts)


def curve(policy: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (policy.folder / "metrics.jsonl").read_text().splitlines()]


def verbs(lab: Any) -> list[str]:
    return [stage["stage"] for stage in lab.account.stages]


def test_it_revises_imitates_compares_and_reinforces(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    policy = FAST.align(constitutional(task), lab)
    assert verbs(lab) == [
        "sample to revise", "revise revision 1", "revise revision 2", "fit SFTLoss", "sample labeler",
        "prefer ToyLabeler", "fit_reward_model PairwiseRewardLoss", "sample reference", "score RewardModel",
        "fit PPOLoss",
    ]  # fmt: skip
    charged = lab.account.charged
    assert charged.labels == 0 and charged.labeler_calls > 0  # nothing is mixed in where nothing else is asked
    first = curve(policy)[0]
    assert first["objective/kl"] == pytest.approx(0, abs=1e-4)  # to the supervised policy
    assert first["objective/explained_variance"] == 0.0  # every value is 0 at first
    noted = [note for note in lab.account.notes if "step" in note]
    assert [note["step"] for note in noted] == [1, 2] and all(note["revision/made"] > 0.5 for note in noted)


@pytest.mark.parametrize("seed", [0, 1])
def test_it_learns_what_the_labeler_likes(toy_cell: Callable[..., Any], seed: int) -> None:
    lab, task = toy_cell(seed=seed)
    told = constitutional(task, labeler=ToyLabeler(oracle=toy_task.Favours(scale=2.0)))
    aligned = replace(FAST, updates=20, n=4).align(told, lab)
    assert favoured(lab, aligned, task) > favoured(lab, task.policy, task) + 0.1


def test_it_climbs_a_reward_model_of_what_the_labeler_prefers(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell(seed=1)
    policy = replace(FAST, updates=90, n=8).align(constitutional(task), lab)  # seeds 0 to 3 gain .5 to 1.3
    scores = [line["objective/scores"] for line in curve(policy)]
    assert sum(scores[-10:]) / 10 > sum(scores[:6]) / 6 + 0.3


def test_it_imitates_from_the_base_by_default(toy_cell: Callable[..., Any]) -> None:
    assert ConstitutionalAI().start == "base"
    keys = []
    for start in ("base", "sft"):
        lab, task = toy_cell()
        replace(FAST, start=start, updates=1).align(constitutional(task), lab)  # type: ignore[arg-type]
        keys += [stage["key"] for stage in lab.account.stages if stage["stage"] == "fit SFTLoss"]
    assert len(set(keys)) == 2


def test_with_prompts_of_both_kinds_only_those_about_harm_are_revised(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    mixed = of_kinds(constitutional(task))
    FAST.align(replace(mixed, preferences={**mixed.preferences, "helpful": mixed.preferences["overall"]}), lab)
    ledgers = {stage["stage"]: stage["ledger"] for stage in lab.account.stages}
    assert ledgers["sample to revise"]["prompts"] == 4 and ledgers["sample helpful"]["completions"] == 4 * 2
    assert ledgers["sample labeler"]["prompts"] == 4 and ledgers["sample reference"]["prompts"] == 8
    assert lab.account.charged.labels > 0  # people's preferences for helpfulness


def test_fewer_prompts_may_be_revised_than_are_compared(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    replace(FAST, prompts=3, updates=1).align(constitutional(task), lab)
    ledgers = {stage["stage"]: stage["ledger"] for stage in lab.account.stages}
    assert ledgers["sample to revise"]["prompts"] == 3 and ledgers["sample labeler"]["prompts"] == 8


def test_a_language_model_may_revise(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    reviser = LanguageReviser(task.policy, exemplars=(), revision=Sampling())
    FAST.align(constitutional(task, reviser=reviser), lab)
    ledger = next(stage["ledger"] for stage in lab.account.stages if stage["stage"] == "revise revision 1")
    assert 8 < ledger["completions"] <= 16  # a critique each, and a revision where there is a critique


def test_the_principles_are_part_of_what_it_computes(toy_cell: Callable[..., Any]) -> None:
    keys = []
    for principles in (PRINCIPLES, PRINCIPLES[::-1]):
        lab, task = toy_cell()
        replace(FAST, updates=1).align(constitutional(task, principles=principles), lab)
        keys.append(lab.account.stages[1]["key"])
    assert len(set(keys)) == 2


def test_a_budget_ends_it_with_the_policy_it_has(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell(completions=60)
    policy = replace(FAST, updates=10).align(constitutional(task), lab)
    assert lab.account.stages[-1]["stopped"] == "budget" and policy.folder.is_dir()


def test_a_task_that_lacks_what_it_needs_is_refused(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    with pytest.raises(BadInput, match="no reviser or no principles"):
        FAST.align(with_labeler(task), lab)
    with pytest.raises(BadInput, match="no AI labeler that compares"):
        FAST.align(replace(constitutional(task), labeler=None), lab)


def test_a_labeler_known_without_end_is_the_reward(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    FAST.align(constitutional(task, labeler=ToyLabeler(oracle=toy_task.Favours())), lab)
    assert verbs(lab)[-2:] == ["fit SFTLoss", "fit PPOLoss"] and lab.account.charged.labeler_calls == 0


@pytest.mark.parametrize("fields", [{"revisions": 0}, {"clamp": 0.5}, {"clamp": 1.1}])
def test_senseless_numbers_are_refused(fields: Any) -> None:
    with pytest.raises(BadInput, match="revisions must be at least 1 and clamp above"):
        ConstitutionalAI(**fields)
