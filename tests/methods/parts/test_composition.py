"""Methods made of methods: who starts where, who pays, and what a share of a budget ends."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import toy_task
from known_reward import Known

from alignarena.core.contract import Lab, Policy, Schedule, Task
from alignarena.core.errors import BadInput
from alignarena.methods.best_of_n import BestOfN
from alignarena.methods.parts.composition import Chain, Iterate
from alignarena.methods.parts.experience import Fixed
from alignarena.methods.parts.instructions import Instructed
from alignarena.methods.parts.losses import DPOLoss, SFTLoss
from alignarena.methods.parts.reward_modelling import RewardModelling
from alignarena.methods.parts.rows import pairs
from alignarena.methods.rejection_sampling import RejectionSampling
from alignarena.methods.rest import ReST

FAST = Schedule(learning_rate=1e-2, batch_size=8)
STARTS: list[Task] = []


@dataclass(frozen=True)
class Tuned:
    """Remembers the task it was given, and fine-tunes on the demonstrations at a rate of its own."""

    rate: float = 1e-2

    def align(self, task: Task, lab: Lab) -> Policy:
        STARTS.append(task)
        return lab.fit(task.policy, Fixed(task.demonstrations), SFTLoss(), Schedule(learning_rate=self.rate))


@dataclass(frozen=True)
class Told:
    """Leaves the policy as it is, under an instruction."""

    def align(self, task: Task, lab: Lab) -> Policy:
        return Instructed(task.policy, "Be brief.")


@dataclass(frozen=True)
class Compared:
    """One step of DPO on fixed pairs: its first loss is log 2 where the start is the reference model."""

    def align(self, task: Task, lab: Lab) -> Policy:
        return lab.fit(task.policy, Fixed(pairs(toy_task.preferences())), DPOLoss(), FAST)


@pytest.fixture(autouse=True)
def forget() -> None:
    STARTS.clear()


def test_each_stage_starts_from_the_policy_of_the_one_before(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    policy = Chain(Chain(Tuned(1e-2), Tuned(2e-2)), Tuned(3e-2)).align(task, lab)
    starts = [one.policy.digest for one in STARTS]
    assert starts[0] == task.policy.digest and len(set(starts)) == 3
    assert policy.digest not in starts
    assert [one.sft for one in STARTS] == [None, task.policy, task.policy]
    assert STARTS[1].preferences is task.preferences  # so that labels are bought once


def test_a_chain_is_what_its_stages_are_one_after_the_other(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    chained = Chain(Tuned(1e-2), Compared()).align(task, lab)
    other, again = toy_cell()
    first = Tuned(1e-2).align(again, other)
    second = other.fit(first, Fixed(pairs(toy_task.preferences())), DPOLoss(), FAST)
    assert chained.digest == second.digest


def test_the_reference_model_of_a_stage_is_its_start(toy_cell: Callable[..., Any]) -> None:
    import json

    lab, task = toy_cell()
    policy = Chain(Tuned(1e-2), Compared()).align(task, lab)
    first = json.loads((policy.folder / "metrics.jsonl").read_text().splitlines()[0])  # type: ignore[attr-defined]
    assert first["margin"] == pytest.approx(0.0, abs=1e-6)


def test_iterate_goes_on_from_each_round(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    policy = Iterate(Tuned(1e-2), rounds=3).align(task, lab)
    same = Chain(Chain(Tuned(1e-2), Tuned(1e-2)), Tuned(1e-2)).align(*reversed(toy_cell()))
    assert len({one.policy.digest for one in STARTS[:3]}) == 3
    assert policy.digest == same.digest


def test_stages_of_equal_settings_share_one_reward_model_that_is_charged_once(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    sampler = RejectionSampling(rounds=1, n=4, reward_model=RewardModelling(FAST), schedule=FAST)
    Chain(sampler, sampler).align(task, lab)
    fits = [stage for stage in lab.account.stages if stage["verb"] == "fit_reward_model"]
    assert len(fits) == 2 and fits[0]["key"] == fits[1]["key"]
    alone, given = toy_cell()
    sampler.align(given, alone)
    shared = 8 * 4 + 8  # what the annotator compared, and what the reward model is standardised on
    assert alone.account.charged.completions == shared + 8 * 4
    assert lab.account.charged.completions == shared + 2 * 8 * 4
    assert lab.account.charged.labels == alone.account.charged.labels


def test_a_share_of_the_budget_ends_the_first_stage_alone(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell(completions=160)
    endless = RejectionSampling(rounds=50, n=4, reward_model=Known(), schedule=FAST)
    policy = Chain(endless, ReST(grow_steps=1, n=4, reward_model=Known(), schedule=FAST), share=0.4).align(task, lab)
    streams = [stage["stage"] for stage in lab.account.stages if stage["verb"] == "sample"]
    assert streams == ["sample round 0", "sample round 1", "sample round 0"]  # 64 of 160 completions, then 32 more
    assert policy is lab.account.last_policy


@pytest.mark.parametrize(
    ("first", "gives"),
    [(BestOfN(reward_model=Known()), "BestOfN gives a BestOfNPolicy"), (Told(), "Told gives a Instructed")],
)
def test_a_recipe_cannot_be_trained_further(toy_cell: Callable[..., Any], first: Any, gives: str) -> None:
    lab, task = toy_cell()
    with pytest.raises(BadInput, match=f"{gives}, which cannot be trained further"):
        Chain(first, Tuned()).align(task, lab)
