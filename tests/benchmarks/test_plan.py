"""A dry run: counts worked out by hand, the model's own tokenizer, no weights and nothing written."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from alignarena import cli
from alignarena.benchmarks import plan
from alignarena.benchmarks.counting import CountedPolicy, CountedScorer, CountingLab, Sizes, Stage
from alignarena.benchmarks.rates import rates
from alignarena.core import registry
from alignarena.core.contract import Lab, Policy, Schedule, Task
from alignarena.core.errors import BadInput
from alignarena.core.files import read_json
from alignarena.core.records import Ledger
from alignarena.methods.parts.experience import Fixed, Rollouts, ScoredBy
from alignarena.methods.parts.hindsight import HIRLoss
from alignarena.methods.parts.losses import SFTLoss

LEDGER = Ledger(flops=6e9, seconds=2.0, peak_memory_mib=512)


def _row(text: str, name: str) -> list[str]:
    """Return the counts of one row of the cost table."""
    found = re.search(rf"^  {name} +(.*)$", text.partition("cost a method and seed")[2], re.MULTILINE)
    assert found is not None, text
    return re.split(r"  +", found[1])


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ALIGNARENA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("alignarena.harness.backbone.Backbone.__init__", lambda *_: pytest.fail("weights were loaded"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


def test_the_counts_are_those_of_the_suite(tiny_suite_file: Path, cache: Path) -> None:
    text = plan.dry_run(str(tiny_suite_file))
    where = [0, 1, 3, 4, 5]  # completions, sampled tokens, labels, labeler calls, optimiser steps
    counted = {name: [_row(text, name)[i] for i in where] for name in ("base", "sft", "dpo", "ppo", "in all")}
    # 6 prompts x 4 completions of at most 11 tokens to rank, log2(4!) labels each; SFT: 8 rows in one batch;
    # DPO: 3 batches of 2 prompts, twice; PPO: 6 references, a reward model, 2 phases of 4 x 2 in 2 batches, twice.
    assert counted["base"] == ["0", "0", "0", "0", "0"]
    assert counted["sft"] == ["0", "0", "0", "0", "1"]
    assert counted["dpo"] == ["24", "264", "28", "0", "7"]
    assert counted["ppo"] == ["46", "506", "28", "0", "10"]
    assert not cache.exists() and not list(Path.cwd().glob("runs*"))


def test_the_estimate_is_near_what_the_run_was_charged(
    finished_tiny_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALIGNARENA_CACHE", str(finished_tiny_run.cache))
    text = plan.dry_run(finished_tiny_run.suite)
    for method in ("sft", "best_of_n", "dpo", "ppo", "rejection_sampling"):
        charged = read_json(finished_tiny_run.folder / method / "0" / "budget.json")["charged"]
        completions, sampled, trained, labels, _, steps, _ = (
            float(cell.replace(",", "")) if cell[-1].isdigit() else 0.0 for cell in _row(text, method)
        )
        assert (completions, steps) == (charged["completions"], charged["optimizer_steps"]), method
        assert labels == pytest.approx(charged["labels"], abs=0.5)
        assert sampled >= charged["sampled_tokens"]
        assert trained == pytest.approx(charged["trained_tokens"], rel=0.4)  # half of 11 tokens a completion is a guess


def test_seeds_and_shared_work_add_up(tiny_suite_file: Path, cache: Path) -> None:
    one = _row(plan.dry_run(str(tiny_suite_file), methods=["dpo", "rejection_sampling"]), "in all")
    alone = _row(plan.dry_run(str(tiny_suite_file), methods=["dpo"]), "in all")
    three = _row(plan.dry_run(str(tiny_suite_file), methods=["dpo", "rejection_sampling"], seeds=[0, 1, 2]), "in all")
    # SFT's and the method's own evaluation, 4 prompts x 8 each; the ranked samples; the proxy's references; what the
    # held-out reward model learns from, 2 validation prompts x 4
    assert alone[0] == str(2 * 32 + 24 + 6 + 2 * 4)
    assert one[0] == str(3 * 32 + 24 + 6 + 2 * 4 + 2 * 6 * 4) and int(three[0]) == 3 * int(one[0])


def test_the_plan_names_what_differs_and_what_the_data_is(tiny_suite_file: Path, cache: Path) -> None:
    text = plan.dry_run(str(tiny_suite_file), set={"method.dpo.beta": "0.3", "model.max_prompt_tokens": "12"})
    assert re.search(r"^  dpo +beta=0\.3, schedule\.learning_rate=0\.003, schedule\.batch_size=2$", text, re.MULTILINE)
    assert re.search(r"dropped \d+: longer than max_prompt_tokens", text)  # by the model's own tokenizer
    assert "train: 6 of" in text and "nothing costs money" in text and "budget: labels held equal; no limits" in text


def test_a_model_that_is_not_here_leaves_time_open(tiny_suite_file: Path, cache: Path) -> None:
    text = plan.dry_run(str(tiny_suite_file), set={"model.model_name_or_path": "nobody/no-such-model"})
    assert "token limits not applied: model 'nobody/no-such-model' cannot be loaded" in text
    assert _row(text, "dpo")[-1] == "?" and _row(text, "dpo")[0] == "24" and "time and memory: unknown" in text


def test_a_method_that_breaks_the_contract_is_named(
    tiny_suite_file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.load_all()
    monkeypatch.setattr(registry, "METHODS", dict(registry.METHODS))

    @dataclass(frozen=True)
    class Twice:
        """Draws one stream twice."""

        def align(self, task: Task, lab: Lab) -> Policy:
            lab.sample(task.policy, task.prompts, 1, stream="a")
            lab.sample(task.policy, task.prompts, 2, stream="a")
            return task.policy

    registry.method("twice", paper="none")(Twice)
    text = plan.dry_run(str(tiny_suite_file), methods=["twice", "sft"])
    assert "twice cannot be planned: lab.sample draws twice with stream 'a'" in text
    assert _row(text, "sft")[4] == "0"


def test_wrong_data_is_the_error_of_a_run(cache: Path) -> None:
    with pytest.raises(BadInput, match="does not exist; check data"):
        plan.dry_run("preferences", set={"data.path": "none.jsonl", "model.model_name_or_path": "nobody/none"})


def test_rates_come_from_finished_stages_else_from_a_probe(tmp_path: Path) -> None:
    fit = Stage("a", "fit SFTLoss", Ledger(flops=9e9))
    probed = rates(tmp_path, [fit], "fp32")
    assert "probe" in probed.source and probed.probed > 1e8 and probed.peak_memory_mib == 0
    assert probed.seconds(fit) == pytest.approx(9e9 / (0.6 * probed.probed))
    (tmp_path / "digest").mkdir()
    record = {"verb": "fit", "stage": "fit SFTLoss", "ledger": LEDGER.to_dict()}
    (tmp_path / "digest" / "record.json").write_text(json.dumps(record))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "record.json").write_text("{")
    measured = rates(tmp_path, [fit], "fp32")
    assert measured.seconds(fit) == pytest.approx(3.0) and measured.peak_memory_mib == 512
    assert measured.seconds(Stage("b", "fit DPOLoss", Ledger(flops=3e9))) == pytest.approx(1.0)  # by its verb
    assert measured.seconds(Stage("c", "prefer people", Ledger())) == 0.0
    assert "probe" not in measured.source


SMALL_WORLD = {"data.world.attributes": "2", "data.world.tokens": "3", "data.world.length": "3", "data.world.rows": "8",
               "data.world.demonstrations": "4", "model.max_new_tokens": "3"}  # fmt: skip
METHODS = ["sft", "best_of_n", "dpo", "cpl", "ppo", "rejection_sampling"]


def test_an_exact_world_is_planned_before_its_model_is_made(cache: Path) -> None:
    once = {f"{fit}.num_train_epochs": "1" for fit in ("sft", *(f"method.{m}.schedule" for m in METHODS[2:]))}
    ppo = {"method.ppo.updates": "2", "method.ppo.prompts_per_update": "4", "method.ppo.n": "4"}
    rejection_sampling = {"method.rejection_sampling.rounds": "1", "method.rejection_sampling.n": "8"}
    given = {**SMALL_WORLD, "feedback.phases": "3", "feedback.pairs": "16", **once, **ppo, **rejection_sampling}
    text = plan.dry_run("exact/limit", methods=METHODS, set=given)
    assert "model exact-world, 7" in text and " k parameters" in text and "dataset exact" in text
    # SFT: 5 combinations x 4 demonstrations in one batch; DPO: 3 phases of 16 pairs in one batch each; PPO: 2 phases
    assert [_row(text, name)[5] for name in ("sft", "dpo", "cpl", "ppo")] == ["1", "4", "4", "3"]
    # feedback without end costs no labels, and what it is made from is the reward model: nothing is sampled to rank
    assert [_row(text, name)[0] for name in METHODS] == ["0", "0", "0", "0", str(2 * 4 * 4), str(40 * 8)]
    assert {_row(text, name)[3] for name in METHODS} == {"0"} and "cannot be planned" not in text
    assert not cache.exists()


def test_revisions_are_counted(tiny_suite_file: Path, cache: Path) -> None:
    small = {"updates": "1", "prompts_per_update": "4", "n": "2", "revisions": "2", "supervised.num_train_epochs": "1"}
    given = {f"method.constitutional_ai.{key}": value for key, value in small.items()}
    text = plan.dry_run(str(tiny_suite_file), methods=["constitutional_ai"], set=given)
    counted = _row(text, "constitutional_ai")
    # 6 prompts: answers, a critique and a revision each and twice, 2 to compare, SFT's references; then 4 x 2
    assert counted[0] == str(6 + 2 * 2 * 6 + 2 * 6 + 6 + 4 * 2) and "cannot be planned" not in text
    # at most 11 tokens, but 40 for a critique
    assert counted[1] == str(11 * (6 + 2 * 6 + 2 * 6 + 6 + 4 * 2) + 40 * 2 * 6)
    assert counted[3] == "0" and int(counted[4]) > 0


def test_a_budget_of_labels_in_an_exact_world_is_counted(cache: Path) -> None:
    schedule = {"num_train_epochs": "3", "batch_size": "8", "validation_share": "0.25"}
    given = {**SMALL_WORLD, "data.sizes.reward_model": "32", "data.sizes.train": "10", "method.ppo.updates": "1",
             "sft.num_train_epochs": "4", "feedback.n": "2",
             **{f"method.dpo.schedule.{key}": value for key, value in schedule.items()}}  # fmt: skip
    text = plan.dry_run("exact/budget", methods=METHODS, set=given)
    dpo = _row(text, "dpo")
    assert (dpo[0], dpo[3]) == ("64", "32") and "cannot be planned" not in text
    assert dpo[5] == str(4 + 3 * 3)  # 8 of 32 prompts are held out: 3 batches of 8, thrice


def test_a_limit_that_is_not_the_worlds_is_refused(cache: Path) -> None:
    with pytest.raises(BadInput, match=r"model.max_new_tokens: must be data.world.length = 4"):
        plan.dry_run("exact/limit", methods=["sft"], set={"model.max_new_tokens": "5"})


def test_what_is_held_out_is_read_but_not_trained_on() -> None:
    rows = Dataset.from_list([{"prompt_id": f"p{i}", "prompt": "x", "completion": "y y"} for i in range(8)])
    sizes = Sizes(max_new_tokens=4, parameters=1, prompt=lambda _: 3, completion=lambda text: len(text.split()))

    def counted(experience: Any, **changes: float) -> Ledger:
        lab = CountingLab(sizes=sizes)
        lab.fit(CountedPolicy("base"), experience, SFTLoss(), Schedule(num_train_epochs=2, batch_size=2, **changes))  # type: ignore[arg-type]
        return lab.total

    whole, held = counted(Fixed(rows)), counted(Fixed(rows), validation_share=0.25)
    assert (whole.trained_tokens, whole.scored_tokens, whole.optimizer_steps) == (2 * 8 * 5, 0, 8)
    # 2 of 8 prompts are held out, and read before the first epoch and after each
    assert (held.trained_tokens, held.scored_tokens, held.optimizer_steps) == (2 * 6 * 5, 3 * 2 * 5, 6)
    assert held.flops == 6 * held.trained_tokens + 2 * held.scored_tokens
    rollouts = Rollouts(rows.remove_columns("completion"), ScoredBy(CountedScorer("s")), phases=1, prompts_per_phase=8)
    fresh = counted(rollouts, validation_share=0.25)
    assert fresh.optimizer_steps == 8  # nothing is held out of what was sampled for the fit
    with pytest.raises(BadInput, match=r"0\.05 of 8 prompts holds out 0"):
        counted(Fixed(rows), validation_share=0.05)


@dataclass(frozen=True)
class Alternating:
    """Rows of 5 tokens in even phases and of 7 in odd ones; the first phase has as many again."""

    phases: int
    value_start: None = None

    def rows(self, phase: int, policy: Any, lab: Any) -> Dataset:
        text = "y y" if phase % 2 == 0 else "y y y y"
        return Dataset.from_list([{"prompt_id": f"{phase}/{i}", "prompt": "x", "completion": text}
                                  for i in range(8 if phase == 0 else 4)])  # fmt: skip


@pytest.mark.parametrize("phases", [1, 2, 8, 9, 300])
def test_of_many_phases_some_are_counted_and_the_others_cost_what_these_did(phases: int) -> None:
    sizes = Sizes(max_new_tokens=4, parameters=1, prompt=lambda _: 3, completion=lambda text: len(text.split()))
    lab = CountingLab(sizes=sizes)
    lab.fit(CountedPolicy("base"), Alternating(phases), SFTLoss(), Schedule(batch_size=2))
    assert lab.total.optimizer_steps == 4 + 2 * (phases - 1)
    exact = sum((8 if phase == 0 else 4) * (5 if phase % 2 == 0 else 7) for phase in range(phases))
    assert lab.total.trained_tokens == (exact if phases <= 8 else pytest.approx(exact, rel=0.03))


def test_what_is_asked_for_twice_is_counted_once() -> None:
    rows = Dataset.from_list([{"prompt_id": f"p{i}", "prompt": "x", "completion": "y y"} for i in range(8)])
    sizes = Sizes(max_new_tokens=4, parameters=1, prompt=lambda _: 3, completion=lambda text: len(text.split()))
    lab = CountingLab(sizes=sizes)
    base = CountedPolicy("base")
    for _ in range(2):
        lab.fit(base, Fixed(rows), SFTLoss(), Schedule())
    assert lab.total.trained_tokens == lab.tokens(rows, SFTLoss()) == 8 * 5
    lab.fit(base, Fixed(rows), SFTLoss(), Schedule(learning_rate=1.0))
    assert lab.total.trained_tokens == 2 * 8 * 5


def test_a_completion_counts_under_every_prompt_it_is_read_after() -> None:
    rows = Dataset.from_list([{"prompt_id": "p", "prompt": "x", "prompt_0": "a x", "prompt_1": "a long x",
                               "completion": text, "grade": 0, "sampled_logp": -1.0} for text in ("b b", "c c", "b b")])
    sizes = Sizes(4, 1, prompt=lambda prompt: len(prompt.split()), completion=lambda text: len(text.split()))
    lab = CountingLab(sizes=sizes)
    # both prompts once, of 2 and 3 words, each with the two distinct completions of 2
    assert lab.tokens(rows, HIRLoss(grades=2)) == 2 + 3 + 2 * (2 + 2)


def test_every_variant_of_the_exact_study_is_planned_from_the_command_line(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = [f"{key}={value}" for key, value in {**SMALL_WORLD, "feedback.phases": "2"}.items()]
    assert cli.main(["run", "exact", "--dry-run", "--methods", "sft,ipo,best_of_n", "--set", *small]) == 0
    said = capsys.readouterr().out
    assert re.findall(r"^suite (\S+),", said, re.MULTILINE) == ["exact/limit", "exact/budget"]
    assert "cannot be planned" not in said and not cache.exists()
