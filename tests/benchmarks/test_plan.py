"""A dry run: counts worked out by hand, the model's own tokenizer, no weights and nothing written."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from alignarena.benchmarks import plan
from alignarena.benchmarks.counting import Stage
from alignarena.benchmarks.rates import rates
from alignarena.core import registry
from alignarena.core.contract import Lab, Policy, Task
from alignarena.core.errors import BadInput
from alignarena.core.files import read_json
from alignarena.core.records import Ledger

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
    # SFT's and the method's own evaluation, 4 prompts x 8 each; the ranked samples; the proxy's references
    assert alone[0] == str(2 * 32 + 24 + 6)
    assert one[0] == str(3 * 32 + 24 + 6 + 2 * 6 * 4) and int(three[0]) == 3 * int(one[0])


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
