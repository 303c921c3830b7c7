"""The lab's verbs: seeded by name, memoised by content, charged at cold cost, ended by the budget."""

import importlib.util
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import tiny_model
import toy_task
from datasets import Dataset

from alignarena.core.contract import Principle, Rows, Sampling, Schedule
from alignarena.core.errors import BudgetUsedUp, RunFailed
from alignarena.core.records import Ledger
from alignarena.evaluators.annotator import SimulatedAnnotator
from alignarena.harness.backbone import Backbone
from alignarena.harness.lab import HarnessLab
from alignarena.harness.policy import AdapterPolicy
from alignarena.harness.tokens import TokenSequence
from alignarena.methods.best_of_n import BestOfNPolicy
from alignarena.methods.dpo import DPO
from alignarena.methods.parts.experience import Fixed, Rollouts, ScoredBy
from alignarena.methods.parts.losses import DPOLoss, SFTLoss
from alignarena.methods.parts.policy_gradient import PPOLoss
from alignarena.methods.parts.reward_losses import KWiseRewardLoss
from alignarena.methods.parts.rows import pairs, rankings

NewLab = Callable[..., HarnessLab]
SHORT = Schedule(learning_rate=1e-2, batch_size=4)


def every_verb(lab: HarnessLab) -> list[Any]:
    """Use each verb once; return what it gave."""
    base = toy_task.base(lab)
    sampled = lab.sample(base, toy_task.prompts(), 2, stream="a")
    ranked = lab.prefer(rankings(sampled), SimulatedAnnotator(toy_task.Favours(), noise=0.1))
    model = lab.fit_reward_model(base, ranked, KWiseRewardLoss(), SHORT)
    policy = lab.fit(base, Fixed(pairs(ranked)), DPOLoss(), SHORT)
    scored = lab.score(sampled, model)
    return [*(rows.to_list() for rows in (sampled, ranked, scored, lab.logps(policy, sampled))), model, policy]


VERBS = ["sample", "prefer", "fit_reward_model", "fit", "score", "logps"]


def test_a_second_run_computes_nothing_and_is_charged_the_same(
    new_lab: NewLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = new_lab(), new_lab()
    made = every_verb(first)
    monkeypatch.setattr(second.memo, "_computed", None)  # any computation would fail
    assert every_verb(second) == made
    assert [stage["verb"] for stage in second.account.stages] == VERBS
    assert [stage["hit"] for stage in first.account.stages] == [False] * 6
    assert [stage["hit"] for stage in second.account.stages] == [True] * 6
    assert second.account.charged == first.account.charged == first.account.spent
    assert second.account.spent == Ledger()
    keys = [[stage["key"] for stage in lab.account.stages] for lab in (first, second)]
    assert keys[0] == keys[1]


def test_every_verb_is_metered(new_lab: NewLab, tiny_backbone: Backbone) -> None:
    lab = new_lab()
    sampled, *_ = every_verb(lab)
    cost = {stage["verb"]: Ledger.from_dict(stage["ledger"]) for stage in lab.account.stages}
    prompt_tokens = sum(len(tiny_backbone.tokens.prompt_of(row)) for row in toy_task.prompts().to_list())
    new = sum(len(row["completion_ids"]) for row in sampled)
    parameters = tiny_backbone.parameters
    assert (cost["sample"].prompts, cost["sample"].completions) == (8, 16)
    assert (cost["sample"].sampled_tokens, cost["sample"].scored_tokens) == (new, prompt_tokens)
    assert cost["sample"].flops == 2.0 * parameters * (new + prompt_tokens)
    assert cost["prefer"] == Ledger(
        labels=8.0, seconds=cost["prefer"].seconds, peak_memory_mib=cost["prefer"].peak_memory_mib
    )
    assert cost["score"].scored_tokens == cost["logps"].scored_tokens == prompt_tokens + new  # prompts counted once
    assert cost["fit"].scored_tokens == cost["fit"].trained_tokens  # the reference model reads what is trained on
    assert cost["fit"].optimizer_steps == 2
    assert cost["fit_reward_model"].flops == 4.0 * parameters * cost["fit_reward_model"].trained_tokens
    assert all(ledger.seconds > 0 and ledger.peak_memory_mib > 0 for ledger in cost.values())


def test_draws_differ_by_stream_and_seed_only(new_lab: NewLab) -> None:
    lab, again, other = new_lab(), new_lab(), new_lab(seed=1)
    base, prompts = toy_task.base(lab), toy_task.prompts()
    drawn = lab.sample(base, prompts, stream="a")["completion"]
    assert drawn != lab.sample(base, prompts, stream="b")["completion"]
    assert drawn != other.sample(base, prompts, stream="a")["completion"]
    again.sample(base, prompts.select([3]), stream="b")  # what was called before changes nothing
    assert again.sample(base, prompts.select([5, 2]), stream="a")["completion"] == [drawn[5], drawn[2]]


def test_fits_differ_by_seed(new_lab: NewLab) -> None:
    lab, other = new_lab(), new_lab(seed=1)
    one, two = toy_task.sft(lab), toy_task.sft(other)
    assert one.digest != two.digest
    states = [lab.backbone.weights.state(policy.load(lab.backbone)) for policy in (one, two)]
    assert any(not value.equal(states[1][key]) for key, value in states[0].items())


def test_length_limits_and_greedy_sampling(new_lab: NewLab) -> None:
    lab = new_lab()
    base, prompts = toy_task.base(lab), toy_task.prompts()
    short = lab.sample(base, prompts, 4, stream="a", sampling=Sampling(max_new_tokens=3)).to_list()
    assert all(len(row["completion_ids"]) <= 3 for row in short)
    assert {row["finish_reason"] for row in short if 1 not in row["completion_ids"]} == {"length"}
    assert all((row["finish_reason"] == "stop") == (row["completion_ids"][-1] == 1) for row in short)
    greedy = lab.sample(base, prompts, 2, stream="a", sampling=Sampling(temperature=0.0)).to_list()
    assert [row["completion_ids"] for row in greedy[::2]] == [row["completion_ids"] for row in greedy[1::2]]


def test_the_log_probs_of_a_sample_are_those_of_its_policy(new_lab: NewLab) -> None:
    lab = new_lab()
    policy = toy_task.sft(lab)
    sampled = lab.sample(policy, toy_task.prompts(), 3, stream="a")
    for before, after in zip(sampled["logps"], lab.logps(policy, sampled)["logps"], strict=True):
        assert after == pytest.approx(before, abs=1e-4)


def test_neither_batch_size_nor_order_changes_a_score(
    new_lab: NewLab, tiny_backbone: Backbone, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lab = new_lab()
    sampled = lab.sample(toy_task.base(lab), toy_task.prompts(), 5, stream="a")
    model = lab.fit_reward_model(toy_task.base(lab), toy_task.preferences(), KWiseRewardLoss(), SHORT)
    rows, name = sampled.to_list(), model.load(tiny_backbone)
    sequences = [TokenSequence(tuple(row["prompt_ids"]), tuple(row["completion_ids"])) for row in rows]
    expected = [float(tiny_model.plain_head(tiny_backbone, name, sequence)[-1].detach()) for sequence in sequences]
    usual = tiny_backbone.config
    for tokens in (64, 256, 4096):
        monkeypatch.setattr(tiny_backbone, "config", replace(usual, tokens_per_batch=tokens))
        for order in (list(range(40)), list(lab.random("shuffle", tokens).permutation(40))):
            fresh = new_lab(cache=tmp_path / f"{tokens} {order[0]}")
            scored = fresh.score(sampled.select(order), model)
            assert scored["score"] == pytest.approx([expected[i] for i in order], abs=1e-5)
            logps = fresh.logps(toy_task.base(fresh), sampled.select(order))["logps"]
            for i, found in zip(order, logps, strict=True):
                assert found == pytest.approx(rows[i]["logps"], abs=1e-5)


def test_ties_and_noise_come_from_the_seed(new_lab: NewLab) -> None:
    assert new_lab(seed=3).random("a", 1).random() == new_lab(seed=3).random("a", 1).random()
    assert new_lab(seed=3).random("a", 1).random() != new_lab(seed=4).random("a", 1).random()


@dataclass(frozen=True)
class KeepsSome:
    """A reviser that answers with an indexed selection of the rows."""

    def revise(self, rows: Rows, principles: tuple[Principle, ...], lab: Any, *, stream: str) -> Rows:
        return rows.select([2, 0])


def test_rows_by_index_are_stored_as_they_are_seen(new_lab: NewLab) -> None:
    rows = toy_task.demonstrations(1)
    kept = new_lab().revise(rows, KeepsSome(), (), stream="a")
    assert kept.to_list() == [rows[2], rows[0]]


@dataclass(frozen=True)
class Broken:
    """A scorer that gives no number."""

    lineage: frozenset[str] = frozenset()

    def score(self, rows: Rows, lab: Any) -> list[float]:
        return [float("nan")] * len(rows)


def test_a_score_that_is_no_number_is_an_error(new_lab: NewLab) -> None:
    with pytest.raises(RunFailed, match=r"Broken: the score of prompt 'p0' must be finite, not nan"):
        new_lab().score(toy_task.demonstrations(1), Broken())


LOSS = """
from dataclasses import dataclass
from alignarena.methods.parts.losses import SFTLoss

@dataclass(frozen=True)
class Mine(SFTLoss):
    def __call__(self, outputs, batch):
        loss, metrics = super().__call__(outputs, batch)
        return loss * 1.0, metrics
"""


@pytest.fixture
def module_of(tmp_path: Path) -> Iterator[Callable[[str], ModuleType]]:
    def load(source: str) -> ModuleType:
        file = tmp_path / f"v{len(list(tmp_path.glob('v*.py')))}.py"
        file.write_text(source)
        spec = importlib.util.spec_from_file_location("an_edited_loss", file)
        assert spec is not None and spec.loader is not None
        sys.modules["an_edited_loss"] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    yield load
    sys.modules.pop("an_edited_loss", None)


def test_an_edited_loss_is_computed_again(new_lab: NewLab, module_of: Callable[[str], ModuleType]) -> None:
    lab = new_lab()
    keys = []
    for source in (LOSS, LOSS, LOSS.replace("1.0", "2.0")):
        policy = lab.fit(toy_task.base(lab), Fixed(toy_task.demonstrations()), module_of(source).Mine(), SHORT)
        keys.append(policy.digest)
    assert keys[0] == keys[1] != keys[2]
    assert [stage["hit"] for stage in lab.account.stages] == [False, True, False]


def test_a_half_written_stage_is_computed_again(new_lab: NewLab, tmp_path: Path) -> None:
    lab, other = new_lab(), new_lab(cache=tmp_path / "other")
    policy = toy_task.sft(lab)
    (other.cache.path(policy.digest)).mkdir(parents=True)
    (other.cache.path(policy.digest) / "adapter_model.safetensors").write_bytes(b"half")
    again = toy_task.sft(other)
    files = [(one.folder / "adapter_model.safetensors").read_bytes() for one in (policy, again) if one.folder]
    assert files[0] == files[1]
    assert other.account.stages[0]["hit"] is False


def rollouts(phases: int) -> Rollouts:
    return Rollouts(toy_task.prompts(), ScoredBy(toy_task.Favours()), phases=phases, prompts_per_phase=8, n=2)


def test_a_budget_ends_rollouts_normally(new_lab: NewLab) -> None:
    lab = new_lab(sampled_tokens=450)
    policy = lab.fit(toy_task.base(lab), rollouts(8), PPOLoss(), replace(SHORT, batch_size=8))
    (stage,) = lab.account.stages
    assert stage["stopped"] == "budget"
    assert stage["ledger"]["optimizer_steps"] in (2, 3)  # a phase samples at most 192 tokens
    assert lab.account.last_policy is policy
    assert lab.exhausted
    with pytest.raises(BudgetUsedUp):
        lab.sample(policy, toy_task.prompts(), stream="more")
    free = new_lab()
    full = free.fit(toy_task.base(free), rollouts(8), PPOLoss(), replace(SHORT, batch_size=8))
    assert full.digest != policy.digest  # how far a fit goes is part of what it is
    assert free.account.stages[0]["stopped"] == "finished"


def test_a_budget_ends_offline_training_normally(new_lab: NewLab) -> None:
    lab = new_lab(trained_tokens=400)
    toy_task.sft(lab)
    (stage,) = lab.account.stages
    assert stage["stopped"] == "budget"
    assert 400 <= stage["ledger"]["trained_tokens"] < 800
    before = lab.account.charged.optimizer_steps
    after = lab.fit(toy_task.base(lab), Fixed(toy_task.demonstrations()), SFTLoss(), SHORT)
    assert lab.account.charged.optimizer_steps == before  # nothing left: the start comes back as it was
    state = lab.backbone.weights.state(after.load(lab.backbone))  # type: ignore[attr-defined]
    assert all(value.eq(0).all() for key, value in state.items() if "lora_B" in key)


def test_labels_that_are_used_up_end_purchases_and_nothing_else(new_lab: NewLab) -> None:
    lab = new_lab(labels=sum([math.log2(24)] * 8))  # what the task's preferences cost, to the last label
    policy = toy_task.sft(lab)
    task = toy_task.toy_task(lab, policy)
    better = DPO(schedule=replace(SHORT, num_train_epochs=1)).align(task, lab)
    assert lab.account.charged.labels == lab.budget.labels and lab.account.stages[-1]["stopped"] == "finished"
    lab.sample(better, task.prompts, stream="more")
    with pytest.raises(BudgetUsedUp):
        lab.prefer(rankings(lab.sample(better, task.prompts, 2, stream="fresh")), task.annotator)


def test_a_limit_of_seconds_ends_the_fit_under_way(new_lab: NewLab) -> None:
    lab = new_lab(seconds=0.05)
    lab.fit(toy_task.base(lab), rollouts(50), PPOLoss(), replace(SHORT, batch_size=8))
    assert lab.account.stages[-1]["stopped"] == "budget"


def test_what_was_sampled_to_the_last_token_is_still_learnt_from(new_lab: NewLab) -> None:
    lab = new_lab(completions=8)
    base = toy_task.base(lab)
    lab.sample(base, toy_task.prompts(), stream="all")
    assert lab.exhausted
    lab.fit(base, Fixed(toy_task.demonstrations()), SFTLoss(), SHORT)
    assert lab.account.stages[-1]["stopped"] == "finished" and lab.account.charged.trained_tokens > 0


def test_a_shared_policy_is_charged_when_first_used_and_once(new_lab: NewLab) -> None:
    lab = new_lab()
    policy, unused = toy_task.sft(new_lab()), AdapterPolicy("unused")
    lab.owe(policy, Ledger(trained_tokens=7))
    lab.owe(unused, Ledger(trained_tokens=100))
    assert lab.account.charged == Ledger()
    recipe = BestOfNPolicy(policy, toy_task.Favours(), 2)
    lab.sample(recipe, toy_task.prompts(), stream="a")
    assert lab.account.charged.trained_tokens == 7
    lab.settle(recipe)
    lab.settle(policy)
    lab.logps(policy, toy_task.demonstrations(1))
    assert lab.account.charged.trained_tokens == 7


def test_an_arm_may_spend_a_fraction_of_what_is_left(new_lab: NewLab) -> None:
    lab = new_lab(sampled_tokens=1000, labels=10.0)
    base = toy_task.base(lab)
    lab.sample(base, toy_task.prompts(), 2, stream="before")
    used = lab.account.charged.sampled_tokens
    arm = lab.within(0.5)
    assert arm.budget.limits() == {"sampled_tokens": used + 0.5 * (1000 - used), "labels": 5.0}
    draws = 0
    while not arm.exhausted:
        arm.sample(base, toy_task.prompts(), stream=f"arm {draws}")
        draws += 1
    with pytest.raises(BudgetUsedUp):
        arm.sample(base, toy_task.prompts(), stream="more")
    assert not lab.exhausted
    assert lab.account.charged.sampled_tokens >= used + 0.5 * (1000 - used)  # one account
    lab.sample(base, toy_task.prompts(), stream="after")


def test_only_rows_are_drawn_inside_a_fit(new_lab: NewLab) -> None:
    @dataclass(frozen=True)
    class Nested(Fixed):
        def rows(self, phase: int, policy: Any, lab: Any) -> Rows:
            lab.fit(policy, Fixed(self.data), SFTLoss(), SHORT)
            return self.data

    lab = new_lab()
    with pytest.raises(RuntimeError, match="fit inside another verb"):
        lab.fit(toy_task.base(lab), Nested(toy_task.demonstrations()), SFTLoss(), SHORT)
    toy_task.sft(lab)  # and the lab still works


def test_prompts_may_be_messages(new_lab: NewLab) -> None:
    lab = new_lab()
    rows = [{**row, "prompt": [{"role": "user", "content": row["prompt"]}]} for row in toy_task.prompts().to_list()]
    texts = lab.sample(toy_task.base(lab), toy_task.prompts(), stream="a")["completion"]
    assert lab.sample(toy_task.base(lab), Dataset.from_list(rows), stream="a")["completion"] == texts


def test_what_is_asked_for_twice_is_charged_once(new_lab: NewLab) -> None:
    lab = new_lab()
    base, prompts = toy_task.base(lab), toy_task.prompts()
    first = lab.sample(base, prompts, 2, stream="a")
    charged = lab.account.charged
    assert lab.sample(base, prompts, 2, stream="a").to_list() == first.to_list()
    assert lab.within(0.5).sample(base, prompts, 2, stream="a").to_list() == first.to_list()
    assert lab.account.charged == charged and charged.completions == 16
    assert [stage["hit"] for stage in lab.account.stages] == [False, True, True]
    lab.sample(base, prompts, 2, stream="b")
    assert lab.account.charged.completions == 32


def test_notes_are_kept_in_order_whichever_arm_makes_them(new_lab: NewLab) -> None:
    lab = new_lab()
    lab.note(kept_rows=0.5, threshold=1)
    lab.within(0.5).note(kept_rows=0.25)
    assert lab.account.notes == [{"kept_rows": 0.5, "threshold": 1.0}, {"kept_rows": 0.25}]
    assert lab.account.charged == Ledger()


@pytest.mark.parametrize("loss", [SFTLoss(), DPOLoss()])
def test_the_tokens_of_an_epoch_are_those_a_fit_is_charged(new_lab: NewLab, loss: Any) -> None:
    lab = new_lab()
    base = toy_task.base(lab)
    rows = toy_task.demonstrations() if isinstance(loss, SFTLoss) else pairs(toy_task.preferences())
    counted = lab.tokens(rows, loss)
    assert lab.account.charged == Ledger()
    lab.fit(base, Fixed(rows), loss, replace(SHORT, num_train_epochs=2))
    assert lab.account.stages[-1]["ledger"]["trained_tokens"] == 2 * counted


def test_a_budget_that_is_used_up_names_the_latest_policy(new_lab: NewLab) -> None:
    lab = new_lab(completions=8)
    base, prompts = toy_task.base(lab), toy_task.prompts()
    drawn = lab.sample(base, prompts, stream="a")
    policy = lab.fit(base, Fixed(drawn), SFTLoss(), SHORT)
    with pytest.raises(BudgetUsedUp) as end:
        lab.sample(policy, prompts, stream="b")
    assert end.value.last_policy == policy
