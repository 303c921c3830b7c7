"""The training loop: what it computes does not depend on how it is cut, and every loss learns what it should."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_model
import toy_task
from datasets import Dataset
from torch.testing import assert_close

from alignarena.core.contract import Experience, Loss, Sampling, Schedule
from alignarena.core.errors import BadInput, RunFailed
from alignarena.core.feedback import Standardised
from alignarena.harness.backbone import Backbone
from alignarena.harness.batches import examples
from alignarena.harness.lab import HarnessLab
from alignarena.harness.phase import Phase
from alignarena.harness.policy import AdapterPolicy
from alignarena.harness.reward_model import RewardModel
from alignarena.harness.tokens import TokenSequence
from alignarena.harness.trainer import rate_factor
from alignarena.methods.parts.experience import Fixed, Rollouts, ScoredBy
from alignarena.methods.parts.losses import DPOLoss, SFTLoss
from alignarena.methods.parts.policy_gradient import PPOLoss
from alignarena.methods.parts.reward_losses import KWiseRewardLoss
from alignarena.methods.parts.rows import pairs

NewLab = Callable[..., HarnessLab]
SHORT = Schedule(learning_rate=1e-2, batch_size=4, num_train_epochs=2, adam_epsilon=1e-3)


def log(fitted: AdapterPolicy | RewardModel) -> list[dict[str, Any]]:
    assert fitted.folder is not None
    return [json.loads(line) for line in (fitted.folder / "metrics.jsonl").read_text().splitlines()]


def fit(lab: HarnessLab, experience: Experience, loss: Loss, schedule: Schedule = SHORT) -> AdapterPolicy:
    return lab.fit(toy_task.base(lab), experience, loss, schedule)  # type: ignore[return-value]


def reward_model(lab: HarnessLab, count: int = 8, schedule: Schedule = SHORT) -> RewardModel:
    preferences = toy_task.preferences(count=count)
    return lab.fit_reward_model(toy_task.base(lab), preferences, KWiseRewardLoss(), schedule)


def rollouts(value_start: Any = None, **more: Any) -> Rollouts:
    asked = {"phases": 2, "prompts_per_phase": 8, "n": 2, **more}
    return Rollouts(toy_task.prompts(), ScoredBy(toy_task.Favours()), value_start=value_start, **asked)


FITS: dict[str, Callable[[HarnessLab], AdapterPolicy | RewardModel]] = {
    "sft": lambda lab: fit(lab, Fixed(toy_task.demonstrations()), SFTLoss()),
    "dpo": lambda lab: fit(lab, Fixed(pairs(toy_task.preferences())), DPOLoss()),
    "reward model": reward_model,
    "ppo": lambda lab: fit(lab, rollouts(), PPOLoss(), replace(SHORT, batch_size=8)),
}


@pytest.fixture
def tokens_per_batch(tiny_backbone: Backbone) -> Iterator[Callable[[int], None]]:
    usual = tiny_backbone.config

    def change(tokens: int) -> None:
        tiny_backbone.config = replace(usual, tokens_per_batch=tokens)

    yield change
    tiny_backbone.config = usual


@pytest.mark.parametrize("name", FITS)
def test_micro_batches_change_neither_losses_nor_weights(
    name: str, new_lab: NewLab, tmp_path: Path, tokens_per_batch: Callable[[int], None]
) -> None:
    logs, states = [], []
    for tokens in (4096, 40):
        tokens_per_batch(tokens)
        lab = new_lab(cache=tmp_path / str(tokens))
        fitted = FITS[name](lab)
        logs.append(log(fitted))
        states.append(lab.backbone.weights.state(fitted.load(lab.backbone)))
        lab.backbone.drop(fitted.digest)
    assert len(logs[0]) == len(logs[1]) > 1
    for one, other in zip(*logs, strict=True):
        assert one == pytest.approx(other, abs=1e-5, rel=1e-4)
    for key, weight in states[0].items():
        assert_close(states[1][key], weight, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("tokens", [4096, 40])
def test_ppo_starts_each_phase_at_the_policy_that_sampled(
    new_lab: NewLab, tokens: int, tokens_per_batch: Callable[[int], None]
) -> None:
    tokens_per_batch(tokens)
    lines = log(fit(new_lab(), rollouts(), PPOLoss(), replace(SHORT, batch_size=8)))
    first, second = ([line for line in lines if line["phase"] == phase] for phase in (0, 1))
    for start in (first[0], second[0]):
        assert start["ratio"] == pytest.approx(1.0, abs=1e-12)  # every ratio is 1, their mean is rounded
        assert (start["approxkl"], start["clipfrac"]) == (0.0, 0.0)
    assert first[1]["approxkl"] > 0
    assert first[0]["objective/kl"] == pytest.approx(0.0, abs=1e-5)
    assert second[0]["objective/kl"] != pytest.approx(0.0, abs=1e-5)


def test_dpo_starts_at_its_reference_model(new_lab: NewLab) -> None:
    start = log(FITS["dpo"](new_lab()))[0]  # type: ignore[arg-type]
    assert start["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert start["margin"] == 0.0
    assert start["accuracy"] == 0.5


def test_the_start_is_the_reference_model_whatever_it_is(new_lab: NewLab) -> None:
    lab = new_lab()
    again = lab.fit(toy_task.sft(lab), Fixed(pairs(toy_task.preferences())), DPOLoss(), SHORT)
    start, *_, end = log(again)  # type: ignore[arg-type]
    assert start["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert end["loss"] < start["loss"]


def test_a_column_the_loss_reads_must_be_there(new_lab: NewLab) -> None:
    with pytest.raises(BadInput, match=r"PPOLoss reads \['score'\]"):
        fit(new_lab(), Fixed(toy_task.demonstrations()), PPOLoss())


def test_dropped_rows_are_on_record(new_lab: NewLab) -> None:
    rows = [*toy_task.demonstrations(1).to_list(), {"prompt_id": "p0", "prompt": "w1", "completion": "w1 " * 20}]
    lab = new_lab()
    fit(lab, Fixed(Dataset.from_list(rows)), SFTLoss())
    assert lab.account.stages[-1]["dropped"] == {"longer than max_new_tokens": 1}
    assert lab.account.stages[-1]["stopped"] == "finished"


@dataclass(frozen=True)
class Overflows(SFTLoss):
    """Becomes infinite."""

    def __call__(self, outputs: Mapping[str, Any], batch: Any) -> Any:
        loss, metrics = super().__call__(outputs, batch)
        return loss * math.inf, metrics


def test_a_loss_that_is_not_finite_ends_the_run_and_leaves_the_model_usable(new_lab: NewLab) -> None:
    lab = new_lab()
    with pytest.raises(RunFailed, match="Overflows: the loss is inf at phase 0, step 0; lower the learning_rate"):
        fit(lab, Fixed(toy_task.demonstrations()), Overflows())
    assert log(FITS["sft"](lab))[-1]["loss"] < 8


def test_sft_drives_the_loss_down_and_the_policy_to_an_end(new_lab: NewLab) -> None:
    lab = new_lab()
    policy = lab.fit(
        toy_task.base(lab), Fixed(toy_task.demonstrations(1)), SFTLoss(), replace(toy_task.SFT, num_train_epochs=25)
    )
    lines = log(policy)  # type: ignore[arg-type]
    assert lines[0]["loss"] > 5
    assert lines[-1]["loss"] < 0.5
    answers = lab.sample(policy, toy_task.prompts(), stream="a", sampling=Sampling(temperature=0.0))
    shown = dict(zip(toy_task.demonstrations(1)["prompt_id"], toy_task.demonstrations(1)["completion"], strict=True))
    assert sum(row["completion"] == shown[row["prompt_id"]] for row in answers.to_list()) >= 4


def test_a_reward_model_learns_a_simple_preference(new_lab: NewLab) -> None:
    lab = new_lab()
    schedule = Schedule(learning_rate=1e-2, batch_size=8, num_train_epochs=10)
    model = reward_model(lab, 24, schedule)
    lines = log(model)
    assert lines[0]["loss"] == pytest.approx(math.log(2), abs=0.6)
    assert sum(line["accuracy"] for line in lines[-3:]) / 3 > 0.9
    assert model.lineage == frozenset()  # fixed texts came from no scorer


def test_ppo_raises_a_simple_reward(new_lab: NewLab) -> None:
    lab = new_lab()
    schedule = Schedule(learning_rate=3e-2, batch_size=8, num_train_epochs=2, adam_epsilon=1e-5)
    policy = fit(lab, rollouts(phases=10, n=8), PPOLoss(kl_coef=0.0, missing_eos_penalty=0.0), schedule)
    scores = [line["objective/scores"] for line in log(policy)]
    assert scores[0] < 0.4  # a third of the words are favoured
    assert scores[-1] > scores[0] + 0.15
    fresh = lab.score(lab.sample(policy, toy_task.prompts(), 4, stream="fresh"), toy_task.Favours())["score"]
    assert sum(fresh) / len(fresh) > scores[0] + 0.15


SEEN: list[Any] = []


@dataclass(frozen=True)
class Shows(PPOLoss):
    """Keeps the batch of each phase."""

    def prepare(self, batch: Any, state: dict[str, float]) -> Any:
        SEEN.append(batch)
        return super().prepare(batch, state)


def old_values(lab: HarnessLab, value_start: Any) -> tuple[list[list[float]], list[TokenSequence]]:
    SEEN.clear()
    experience = rollouts(value_start, phases=1, n=1)
    fit(lab, experience, Shows(), replace(SHORT, batch_size=8, num_train_epochs=1))
    values, mask = SEEN[0].old_values["completion"], SEEN[0].mask["completion"]
    rows = lab.sample(toy_task.base(lab), toy_task.prompts(), stream="rollout 0").to_list()
    order = [int(i) for i in lab.random("rollout order", 0).permutation(8)]
    sequences = [TokenSequence(tuple(rows[i]["prompt_ids"]), tuple(rows[i]["completion_ids"])) for i in order]
    return [row[on == 1].tolist() for row, on in zip(values, mask, strict=True)], sequences


def test_values_start_from_the_reward_model_on_its_standardised_scale(new_lab: NewLab) -> None:
    lab = new_lab()
    model = reward_model(lab)
    found, sequences = old_values(lab, Standardised(model, mean=0.7, std=2.5))
    name = model.load(lab.backbone)
    for values, sequence in zip(found, sequences, strict=True):
        plain = tiny_model.plain_head(lab.backbone, name, sequence).detach()
        assert values == pytest.approx(((plain[:-1] - 0.7) / 2.5).tolist(), abs=1e-5)


@pytest.mark.parametrize("scorer", [None, toy_task.Favours(), Standardised(toy_task.Favours(), 0.5, 0.1)])
def test_values_start_at_0_where_no_model_scores(new_lab: NewLab, scorer: Any) -> None:
    found, _ = old_values(new_lab(), scorer)
    assert {value for row in found for value in row} == {0.0}


def phase(tokens: Any, seed: int, number: int = 0, batch_size: int = 3) -> Phase:
    loss = SFTLoss()
    items, _ = examples(toy_task.demonstrations(), loss, tokens)
    schedule = Schedule(batch_size=batch_size, num_train_epochs=2)
    return Phase(SimpleNamespace(schedule=schedule, seed=seed, loss=loss), number, items)  # type: ignore[arg-type]


def test_the_order_depends_on_the_seed_the_phase_and_the_epoch_only(tiny_backbone: Backbone) -> None:
    def order(seed: int, number: int = 0, batch_size: int = 3) -> list[list[int]]:
        made = phase(tiny_backbone.tokens, seed, number, batch_size)
        steps = [made._chosen(step) for step in range(made.total_steps)]
        half = made.steps_per_epoch
        return [[g for step in part for g in step] for part in (steps[:half], steps[half:])]

    first, second = order(0)
    assert sorted(first) == sorted(second) == list(range(8))  # each prompt once an epoch
    assert first != second
    assert order(0, batch_size=8) == [first, second]
    assert order(1) != [first, second] != order(0, number=1)


def test_a_mean_divides_by_what_the_loss_says(tiny_backbone: Backbone) -> None:
    made = phase(tiny_backbone.tokens, 0, batch_size=8)
    completions = toy_task.demonstrations()["completion"]
    assert made.divisor(0) == sum(len(tiny_backbone.tokens.completion_ids(text)) for text in completions)


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("warmup", [0.0, 0.2, 1.0])
def test_the_learning_rate_warms_up_and_never_wastes_a_step(kind: Any, warmup: float) -> None:
    schedule = Schedule(lr_scheduler_type=kind, warmup_ratio=warmup)
    factors = [rate_factor(schedule, step, 20) for step in range(20)]
    assert all(0 < factor <= 1 for factor in factors)
    assert max(factors) == pytest.approx(1.0)
    rising = factors[: int(20 * warmup)]
    assert rising == sorted(rising)
    if kind != "constant" and warmup < 1:
        assert factors[-1] < 0.15
