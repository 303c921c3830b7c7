"""TRL's trainers as methods: our rows, start and schedule, what TRL computes is charged, our policies come out."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_model
import torch
import toy_task
from datasets import Dataset
from torch.testing import assert_close

from alignarena.benchmarks.counting import CountedPolicy, CountingLab, Sizes
from alignarena.core.contract import Schedule, Task
from alignarena.core.errors import BadInput, RunFailed
from alignarena.core.records import Ledger
from alignarena.harness.backbone import Backbone
from alignarena.harness.cache import Cache
from alignarena.harness.lab import HarnessLab
from alignarena.methods.dpo import DPO
from alignarena.methods.parts.reward_modelling import RewardModelling
from alignarena.methods.parts.rows import pairs
from alignarena.methods.parts.trl import PairTrainer, labelled_pairs
from alignarena.methods.trl import TRLDPO, TRLGRPO, TRLKTO, TRLORPO, TRLRLOO, TRLOnlineDPO
from alignarena.paper_lab import PaperScorer, paper_task

OFFLINE = Schedule(learning_rate=1e-2, num_train_epochs=6, batch_size=8)
ONLINE: dict[str, Any] = {
    "updates": 12,
    "prompts_per_update": 8,
    "reward_model": RewardModelling(Schedule(learning_rate=1e-2, batch_size=8, num_train_epochs=4)),
    "schedule": Schedule(learning_rate=1e-2, batch_size=8),
}
PAIR_METHODS = [TRLDPO(schedule=OFFLINE), TRLKTO(schedule=OFFLINE), TRLORPO(schedule=OFFLINE)]
ONLINE_METHODS = [TRLRLOO(**ONLINE), TRLGRPO(**ONLINE), TRLOnlineDPO(**ONLINE | {"updates": 24})]
# a step so damped that it goes along the gradient: where that is near 0, Adam's first step has its rounding's sign
DAMPED = Schedule(learning_rate=10.0, adam_epsilon=1e3, max_grad_norm=1e9, batch_size=8)


def named(method: Any) -> str:
    return type(method).__name__


def curve(policy: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (policy.folder / "metrics.jsonl").read_text().splitlines()]


def tokens_of(lab: HarnessLab, rows: Any) -> int:
    """Return the tokens of both sequences of each pair."""
    prompts = sum(2 * len(lab.backbone.tokens.prompt_of(row)) for row in rows.to_list())
    return prompts + sum(len(ids) for side in ("chosen_ids", "rejected_ids") for ids in rows[side])


@pytest.fixture
def with_trl() -> None:
    pytest.importorskip("trl")


@pytest.mark.usefixtures("with_trl")
@pytest.mark.parametrize("method", PAIR_METHODS, ids=named)
def test_a_trainer_of_pairs_learns_them_and_pays_for_what_trl_computes(
    method: Any, toy_cell: Callable[..., Any]
) -> None:
    lab, task = toy_cell()
    policy = method.align(task, lab)
    assert [stage["verb"] for stage in lab.account.stages] == ["sample", "prefer", "train_with"]
    rows, fit = pairs(task.preferences["overall"]), lab.account.stages[-1]["ledger"]
    frozen = {"TRLDPO": 1, "TRLKTO": 3, "TRLORPO": 0}[named(method)]  # KTO also reads mismatched pairs, twice
    assert (fit["optimizer_steps"], fit["completions"], fit["sampled_tokens"]) == (6, 0, 0)
    assert fit["trained_tokens"] == 6 * tokens_of(lab, rows)
    assert fit["scored_tokens"] == pytest.approx(frozen * fit["trained_tokens"], rel=0.01)
    assert fit["flops"] == lab.backbone.parameters * (4 * fit["trained_tokens"] + 2 * fit["scored_tokens"])
    lines = curve(policy)
    assert [line["step"] for line in lines] == list(range(6))
    assert sum(line["tokens"] for line in lines) == fit["trained_tokens"]
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert toy_task.agreement(lab, policy, task.policy, rows) > 0.8
    assert len(lab.sample(policy, task.prompts, stream="evaluation")) == 8


@pytest.mark.usefixtures("with_trl")
@pytest.mark.parametrize("method", ONLINE_METHODS, ids=named)
def test_an_online_trainer_raises_the_reward_of_the_shared_reward_model(
    method: Any, toy_cell: Callable[..., Any]
) -> None:
    lab, task = toy_cell()
    policy = method.align(task, lab)
    verbs = ["sample", "prefer", "fit_reward_model", "sample", "score", "train_with"]
    assert [stage["verb"] for stage in lab.account.stages] == verbs
    n, steps, fit = getattr(method, "n", 2), method.updates, lab.account.stages[-1]["ledger"]
    assert (fit["prompts"], fit["completions"], fit["optimizer_steps"]) == (8 * steps, 8 * steps * n, steps)
    prompts = steps * n * sum(len(lab.backbone.tokens.prompt_of(row)) for row in task.prompts.to_list())
    assert fit["trained_tokens"] == prompts + fit["sampled_tokens"]
    # prefilled; read by the reference model, with RLOO by the policy at sampling too; and by the reward model
    assert fit["scored_tokens"] > prompts + (2 if named(method) == "TRLRLOO" else 1) * fit["trained_tokens"]
    assert len(curve(policy)) == steps
    scorer = method.reward_model.fit(task, lab)

    def reward(model: Any) -> float:
        rows = lab.score(lab.sample(model, task.prompts, 8, stream="evaluation"), scorer)
        return float(np.mean(rows["score"])) - float(np.mean([reason != "stop" for reason in rows["finish_reason"]]))

    assert reward(policy) > reward(task.policy) + 0.2


@pytest.mark.usefixtures("with_trl")
def test_every_trainer_starts_at_the_reference_model(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    first = {named(method): curve(method.align(task, lab))[0] for method in PAIR_METHODS + ONLINE_METHODS}
    assert first["TRLDPO"]["loss"] == pytest.approx(np.log(2), abs=1e-6)
    assert first["TRLDPO"]["rewards/chosen"] == first["TRLDPO"]["rewards/rejected"] == 0.0
    assert first["TRLKTO"]["loss"] == pytest.approx(0.5, abs=1e-6)
    assert first["TRLRLOO"]["kl"] == first["TRLGRPO"]["kl"] == pytest.approx(0.0, abs=1e-6)
    assert first["TRLOnlineDPO"]["loss"] == pytest.approx(np.log(2), abs=1e-4)  # TRL rounds it


@pytest.fixture(scope="module", params=[True, False], ids=["lora", "full"])
def trained_by_both(
    request: Any, tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, list[float]], list[dict[str, torch.Tensor]]]:
    """Return the losses of our DPO and TRL's in two steps on all pairs, and what the second changed of the start."""
    pytest.importorskip("trl")
    whole = {"tokens_per_batch": 8192}  # a step is one micro-batch: TRL's mean is one of means
    backbone = Backbone(tiny_model.config(tiny_model_dir, use_peft=request.param, **whole))
    lab = HarnessLab(backbone, Cache(tmp_path_factory.mktemp("both")), 0)
    task = toy_task.toy_task(lab, toy_task.sft(lab))
    schedule = replace(DAMPED, num_train_epochs=2)
    policies = [method.align(task, lab) for method in (DPO(schedule=schedule), TRLDPO(schedule=schedule))]
    losses = {name: [line["loss"] for line in curve(one)] for name, one in zip(("ours", "trl"), policies, strict=True)}
    start, *ends = [backbone.weights.state(one.load(backbone)) for one in (task.policy, *policies)]
    return losses, [{name: end[name] - start[name] for name in start} for end in ends]


def test_trl_takes_the_steps_that_we_take(trained_by_both: Any) -> None:
    losses, (ours, theirs) = trained_by_both
    assert_close(losses["trl"], losses["ours"], atol=1e-4, rtol=0)
    assert losses["ours"][1] < losses["ours"][0] - 1e-3
    for name, change in ours.items():
        assert_close(theirs[name], change, atol=1e-3 * float(change.abs().max()) + 1e-9, rtol=1e-3)
    assert max(float(change.abs().max()) for change in ours.values()) > 1e-4


@pytest.mark.usefixtures("with_trl")
def test_equal_work_is_done_once_and_other_settings_are_other_work(toy_cell: Callable[..., Any]) -> None:
    digests = []
    for seed, method in ((0, PAIR_METHODS[0]), (0, PAIR_METHODS[0]), (1, PAIR_METHODS[0]),
                         (0, replace(PAIR_METHODS[0], beta=0.2))):  # fmt: skip
        lab, task = toy_cell(seed)
        digests.append(method.align(task, lab).digest)
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


@pytest.mark.usefixtures("with_trl")
def test_it_learns_from_what_was_sampled_to_the_last_completion(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell(completions=32)  # what the annotator is shown
    TRLDPO().align(task, lab)
    assert lab.exhausted and lab.account.stages[-1]["stopped"] == "finished"


@pytest.mark.usefixtures("with_trl")
def test_a_budget_ends_a_trainer_with_the_policy_it_has(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell(sampled_tokens=500)
    policy = replace(ONLINE_METHODS[0], updates=30).align(task, lab)
    assert lab.account.stages[-1]["stopped"] == "budget"
    assert 0 < len(curve(policy)) < 30
    assert lab.account.charged.sampled_tokens >= 500


@pytest.mark.usefixtures("with_trl")
def test_trl_leaves_the_process_as_it_was(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    replace(PAIR_METHODS[0], beta=0.7).align(task, lab)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]
    assert lab.backbone.accelerator.num_processes == 1 and lab.backbone.accelerator.device.type == "cpu"


@pytest.mark.usefixtures("with_trl")
def test_a_loss_that_is_not_finite_is_a_failed_run(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    with pytest.raises(RunFailed, match="DPOTrainer: the loss is nan at step 1; lower the learning_rate"):
        TRLDPO(schedule=replace(OFFLINE, learning_rate=1e30, max_grad_norm=1e30)).align(task, lab)


@pytest.mark.usefixtures("with_trl")
def test_rows_that_no_trainer_can_read_are_bad_input(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    same = {"prompt_id": "p0", "prompt": "w1", "chosen": "w2", "rejected": "w2"}
    trainer = PairTrainer("DPOTrainer", {}, OFFLINE)
    with pytest.raises(BadInput, match="no rows left to train PairTrainer on: 1 identical completions"):
        lab.train_with(trainer, task.policy, Dataset.from_list([same]))
    segment = {**same, "rejected": "w3", "chosen_span": [0, 1], "rejected_span": [0, 1]}
    with pytest.raises(BadInput, match="trains on whole completions"):
        lab.train_with(trainer, task.policy, Dataset.from_list([segment]))


@pytest.mark.parametrize(
    ("method", "said"),
    [
        (TRLDPO(schedule=replace(OFFLINE, validation_share=0.5)), "holds no prompts out"),
        (TRLRLOO(prompts_per_update=10), r"batch_size \(12\) must divide prompts_per_update \(10\)"),
        (TRLGRPO(n=1), "n must be at least 2, got 1"),
    ],
)
def test_settings_that_trl_does_not_have_are_bad_input(
    method: Any, said: str, toy_cell: Callable[..., Any]
) -> None:
    lab, task = toy_cell()
    with pytest.raises(BadInput, match=said):
        method.align(task, lab)


def test_online_dpo_takes_one_step_on_what_it_samples() -> None:
    with pytest.raises(BadInput, match="num_train_epochs to 1"):
        TRLOnlineDPO(schedule=OFFLINE)


@pytest.mark.parametrize(("version", "said"), [(None, "not installed"), ("2.0.1", "TRL 2.0.1 is installed")])
@pytest.mark.parametrize("method", [PAIR_METHODS[0], ONLINE_METHODS[0]], ids=named)
def test_without_the_right_trl_it_says_how_to_get_it(
    method: Any, version: str | None, said: str, toy_cell: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(name: str) -> str:
        if version is None:
            raise metadata.PackageNotFoundError(name)
        return version

    lab, task = toy_cell()
    monkeypatch.setattr(metadata, "version", found)
    with pytest.raises(BadInput, match=rf"{said}.*pip install 'alignarena\[trl\]'"):
        method.align(task, lab)
    assert "fit_reward_model" not in [stage["verb"] for stage in lab.account.stages]  # said before the work


def test_the_methods_are_listed_without_trl() -> None:
    code = "import sys; from alignarena.core import registry; registry.find('trl_dpo').build(); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "alignarena.methods.trl" in modules
    assert not {"trl", "transformers", "peft", "alignarena.harness.trl_backend"} & set(modules)


@pytest.mark.usefixtures("with_trl")
def test_a_dry_run_counts_what_is_charged(toy_cell: Callable[..., Any]) -> None:
    lab, task = toy_cell()
    rankings = toy_task.preferences()
    PAIR_METHODS[0].align(replace(task, preferences={"overall": rankings}), lab)
    tokens = lab.backbone.tokens
    sizes = Sizes(12, lab.backbone.parameters, lambda one: len(tokens.prompt_ids(one)),
                  lambda one: len(tokens.completion_ids(one)))  # fmt: skip
    on_paper = CountingLab(sizes=sizes)
    PAIR_METHODS[0].align(replace(task, policy=CountedPolicy("sft"), preferences={"overall": rankings}), on_paper)
    charged, counted = Ledger.from_dict(lab.account.stages[-1]["ledger"]), on_paper.stages[-1]
    assert counted.name == lab.account.stages[-1]["stage"]
    for name in ("trained_tokens", "scored_tokens", "optimizer_steps"):
        assert getattr(charged, name) == getattr(counted.ledger, name)


class Sure:
    """A stream of pairs that are preferred with one probability."""

    value_start = None
    oracle = PaperScorer()

    def __init__(self, probability: float, phases: int = 20) -> None:
        self.probability, self.phases = probability, phases

    def rows(self, phase: int, policy: Any, lab: Any) -> Dataset:
        row = {"prompt": "x", "chosen": "good", "rejected": "bad", "chosen_ids": [1], "rejected_ids": [2]}
        return Dataset.from_list([{"prompt_id": f"{i}", **row, "probability": self.probability} for i in range(50)])


@pytest.mark.parametrize("probability", [0.0, 0.8, 1.0])
def test_labels_of_a_stream_are_drawn_by_their_probability(probability: float, new_lab: Callable[..., Any]) -> None:
    task: Task = replace(paper_task(), preferences={"overall": Sure(probability)})
    rows = labelled_pairs(task, new_lab()).to_list()
    assert len(rows) == 1000 and not any("probability" in row for row in rows)
    assert np.mean([row["chosen"] == "good" for row in rows]) == pytest.approx(probability, abs=0.04)
    assert all(row["chosen_ids"] == ([1] if row["chosen"] == "good" else [2]) for row in rows)
    assert rows == labelled_pairs(task, new_lab()).to_list()
