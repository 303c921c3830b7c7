"""Every registered method keeps the contract, and the check fails on methods that don't.

Differs from the paper: the methods of this file are in none.
"""

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
from datasets import Dataset

from alignarena.conformance import check_method
from alignarena.core import registry
from alignarena.core.contract import Lab, Policy, PreferenceStream, Rows, Schedule, Task
from alignarena.core.errors import BudgetUsedUp
from alignarena.methods.parts.experience import Fixed, Rollouts, ScoredBy
from alignarena.methods.parts.instructions import Instructed
from alignarena.methods.parts.losses import DPOLoss, SFTLoss
from alignarena.methods.parts.policy_gradient import PPOLoss
from alignarena.methods.parts.reward_losses import KWiseRewardLoss
from alignarena.methods.parts.rows import pairs
from alignarena.paper_lab import PaperLab, PaperScorer, paper_task

registry.load_all()
BUILT_IN = sorted(name for name, entry in registry.METHODS.items() if entry.module.startswith("alignarena.methods."))


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_method_keeps_the_contract(name: str) -> None:
    assert check_method(name).log


_TRUTH = PaperScorer("truth")


@dataclass(frozen=True)
class EndlessPairs:
    """A preference stream on paper."""

    prompts: Rows
    phases: int = 3
    value_start: None = None
    oracle: PaperScorer = _TRUTH

    def rows(self, phase: int, policy: Policy, lab: Lab) -> Rows:
        return Dataset.from_list(
            [{"prompt_id": f"{phase}/{i}", "prompt": row["prompt"], "chosen": f"{phase} yes", "rejected": "no",
              "probability": 0.75} for i, row in enumerate(self.prompts)]
        )  # fmt: skip


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_method_takes_preferences_without_end(name: str) -> None:
    given, lab = paper_task(), PaperLab()
    stream = EndlessPairs(given.prompts)
    assert isinstance(stream, PreferenceStream)
    policy = registry.find(name).build().align(replace(given, preferences={"overall": stream}), lab)
    assert len(lab.sample(policy, given.prompts, stream="evaluation")) == len(given.prompts)
    assert "fit_reward_model KWiseRewardLoss" not in lab.log  # the truth is known
    fits_pairs = registry.find(name).family == "offline"
    assert any(line.startswith(("fit Stream", "fit Unpaired")) for line in lab.log) == fits_pairs


@dataclass(frozen=True)
class Good:
    """Uses every verb that a method of today uses."""

    beta: float = 0.1
    names: tuple[str, ...] = ("a",)
    schedule: Schedule = Schedule()

    def align(self, task: Task, lab: Lab) -> Policy:
        preferences = task.preferences["overall"]
        scorer = lab.fit_reward_model(task.policy, preferences, KWiseRewardLoss(), self.schedule)
        start = lab.fit(task.policy, Fixed(pairs(preferences)), DPOLoss(self.beta), self.schedule)
        rollouts = Rollouts(task.prompts, ScoredBy(scorer), phases=3, prompts_per_phase=4, value_start=scorer)
        return lab.fit(start, rollouts, PPOLoss(), self.schedule)


def test_a_good_method_passes_and_its_verbs_are_logged() -> None:
    log = check_method(Good).log
    assert log[:3] == ["fit_reward_model KWiseRewardLoss", "fit Fixed DPOLoss", "fit Rollouts PPOLoss"]
    assert log[3:7] == ["sample x1 rollout 0", "score PaperScorer", "sample x1 rollout 1", "score PaperScorer"]


@dataclass
class NotFrozen:
    def align(self, task: Task, lab: Lab) -> Policy:
        return task.policy


@dataclass(frozen=True)
class KeepsState:
    beta: float = 0.1

    def align(self, task: Task, lab: Lab) -> Policy:
        object.__setattr__(self, "beta", 0.2)
        return task.policy


@dataclass(frozen=True)
class HiddenState:
    def __post_init__(self) -> None:
        object.__setattr__(self, "cache", {})

    def align(self, task: Task, lab: Lab) -> Policy:
        return task.policy


@dataclass(frozen=True)
class NotFromYaml:
    stages: frozenset[str] = frozenset({"a"})

    def align(self, task: Task, lab: Lab) -> Policy:
        return task.policy


@dataclass(frozen=True)
class ReturnsNothing:
    def align(self, task: Task, lab: Lab) -> Policy:
        return None  # type: ignore[return-value]


@dataclass(frozen=True)
class DrawsTwice:
    def align(self, task: Task, lab: Lab) -> Policy:
        lab.sample(task.policy, task.prompts, 2, stream="a")
        lab.sample(task.policy, task.prompts.select([0]), 4, stream="a")
        return task.policy


@dataclass(frozen=True)
class GoesPastTheLab:
    def align(self, task: Task, lab: Lab) -> Policy:
        task.policy.complete(lab, task.prompts, 1, stream="a", sampling=None)  # type: ignore[arg-type]
        return task.policy


@dataclass(frozen=True)
class AsksPeoplePastTheLab:
    def align(self, task: Task, lab: Lab) -> Policy:
        assert task.annotator is not None
        task.annotator.prefer(task.preferences["overall"], lab)
        return task.policy


@dataclass(frozen=True)
class WrongRows:
    def align(self, task: Task, lab: Lab) -> Policy:
        return lab.fit(task.policy, Fixed(task.demonstrations), DPOLoss(), Schedule())


@dataclass(frozen=True)
class NoRows:
    def align(self, task: Task, lab: Lab) -> Policy:
        return lab.fit(task.policy, Fixed(task.demonstrations.select([])), SFTLoss(), Schedule())


@dataclass(frozen=True)
class NoValueModel:
    def align(self, task: Task, lab: Lab) -> Policy:
        scorer = lab.fit_reward_model(task.policy, task.preferences["overall"], KWiseRewardLoss(), Schedule())
        rollouts = Rollouts(task.prompts, ScoredBy(scorer), phases=1, prompts_per_phase=4)
        return lab.fit(task.policy, rollouts, PPOLoss(), Schedule())


@dataclass(frozen=True)
class NotMemoisable:
    def align(self, task: Task, lab: Lab) -> Policy:
        return lab.fit(task.policy, Fixed(lambda: 0), SFTLoss(), Schedule())


@dataclass(frozen=True)
class MeanLoss(SFTLoss):
    def __call__(self, outputs: Mapping[str, Any], batch: Any) -> Any:
        values, metrics = super().__call__(outputs, batch)
        return values.mean(), metrics


@dataclass(frozen=True)
class Reduces:
    def align(self, task: Task, lab: Lab) -> Policy:
        return lab.fit(task.policy, Fixed(task.demonstrations), MeanLoss(), Schedule())


@dataclass(frozen=True)
class UndeclaredLoss(DPOLoss):
    needs: ClassVar[frozenset[str]] = frozenset()


@dataclass(frozen=True)
class DoesNotDeclare:
    def align(self, task: Task, lab: Lab) -> Policy:
        return lab.fit(task.policy, Fixed(pairs(task.preferences["overall"])), UndeclaredLoss(), Schedule())


@dataclass(frozen=True)
class UnseededDraws:
    def align(self, task: Task, lab: Lab) -> Policy:
        lab.sample(task.policy, task.prompts, 1, stream=f"{random.random()}")
        return task.policy


@dataclass(frozen=True)
class Stubborn(Rollouts):
    def rows(self, phase: int, policy: Policy, lab: Lab) -> Rows:
        try:
            return super().rows(phase, policy, lab)
        except BudgetUsedUp as error:
            raise RuntimeError("no budget") from error


@dataclass(frozen=True)
class BudgetIsAFailure:
    def align(self, task: Task, lab: Lab) -> Policy:
        scorer = lab.fit_reward_model(task.policy, task.preferences["overall"], KWiseRewardLoss(), Schedule())
        rollouts = Stubborn(task.prompts, ScoredBy(scorer), phases=3, prompts_per_phase=4)
        return lab.fit(task.policy, rollouts, SFTLoss(), Schedule())


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (NotFrozen, "NotFrozen is not frozen"),
        (KeepsState, "align changed the state"),
        (HiddenState, "keeps state beside its fields"),
        (NotFromYaml, "NotFromYaml.stages cannot be set from a suite file"),
        (ReturnsNothing, "align returned a NoneType, which has no digest"),
        (DrawsTwice, "draws twice with stream 'a'"),
        (GoesPastTheLab, "use lab.sample"),
        (AsksPeoplePastTheLab, "use lab.prefer"),
        (WrongRows, "DPOLoss: no column chosen, rejected"),
        (NoRows, "SFTLoss: no rows"),
        (NoValueModel, "PPOLoss needs a value model"),
        (NotMemoisable, "a stage cannot be memoised"),
        (Reduces, "MeanLoss: the loss has shape ()"),
        (DoesNotDeclare, "UndeclaredLoss uses 'chosen', which it declares in neither needs nor columns"),
        (UnseededDraws, "two runs of equal inputs"),
    ],
)
def test_a_broken_method_is_told_what_is_wrong(broken: Any, said: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(said)):
        check_method(broken)


def test_a_used_up_budget_must_end_a_method_normally() -> None:
    with pytest.raises(RuntimeError, match="no budget"):
        check_method(BudgetIsAFailure)


def test_a_method_says_how_it_differs_from_its_paper() -> None:
    silent = type("Silent", (Good,), {"__module__": "json"})
    with pytest.raises(AssertionError, match="json: no 'Differs from the paper:'"):
        check_method(silent)


@dataclass(frozen=True)
class Told:
    """Differs from the paper: it is in none."""

    asks: bool = True

    def align(self, task: Task, lab: Lab) -> Policy:
        return Instructed(task.policy, task.goal) if self.asks else task.policy


@pytest.mark.parametrize(("asks", "informed"), [(True, True), (False, False), (True, False), (False, True)])
def test_a_method_is_in_the_track_of_what_it_reads(asks: bool, informed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = registry.MethodEntry("told", lambda: Told(asks), "none", "baseline", __name__, informed)
    monkeypatch.setitem(registry.METHODS, "told", entry)
    if asks == informed:
        check_method("told")
        return
    with pytest.raises(AssertionError, match=f"register it with informed={asks}"):
        check_method("told")
