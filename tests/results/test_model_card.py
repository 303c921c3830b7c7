"""Model cards: what the Hub reads, what people read, and text that tries to break either."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from huggingface_hub import EvalResult, ModelCard

from alignarena.core.files import write_json
from alignarena.results.frame import load_results
from alignarena.results.model_card import is_hub_id, model_card
from alignarena.results.store import RunFolder

REFERENCE = Path(__file__).parents[2] / "results" / "reference" / "quickstart"

ENDINGS = ("---\ntags: [owned]\n---\n# Owned\n", "```\n# Owned", "x: [1\n- !!python/object:os.system")


def _front_matter(text: str) -> dict[str, Any]:
    _, block, _ = text.split("---\n", 2)
    return dict(yaml.safe_load(block))


def test_the_hub_reads_what_a_policy_is() -> None:
    text = model_card(RunFolder.open(REFERENCE), "dpo", 0, "adapter")
    data = ModelCard(text).data
    assert (data.base_model, data.to_dict()["library_name"], data.license) == (
        "HuggingFaceTB/SmolLM2-135M-Instruct", "peft", "apache-2.0"
    )  # fmt: skip
    assert data.tags == ["alignarena", "dpo", "arxiv:2305.18290"]
    results = {one.metric_type: one for one in data.eval_results or ()}
    assert isinstance(results["gold"], EvalResult) and results["gold"].dataset_name == "quickstart"
    assert results["gold"].metric_value == pytest.approx(load_results(REFERENCE).interval("dpo", "gold").mean, abs=1e-6)
    assert _front_matter(text)["base_model_relation"] == "adapter"
    merged = _front_matter(model_card(RunFolder.open(REFERENCE), "dpo", 0, "model"))
    assert (merged["library_name"], merged["base_model_relation"]) == ("transformers", "finetune")


def test_people_read_data_method_cost_results_and_how_to_repeat_it() -> None:
    text = model_card(RunFolder.open(REFERENCE), "dpo", 0)
    results = load_results(REFERENCE)
    mean, against = results.interval("dpo", "win"), results.compare("dpo", "sft")
    assert f"| win | {mean.mean:.3f} | \\[{mean.low:.3f}, {mean.high:.3f}] |" in text
    assert f"| gold against SFT | {against.difference:.3f} | \\[{against.low:.3f}, {against.high:.3f}] |" in text
    assert "| labels | 825.293 |" in text and "      learning_rate: 0.0001" in text
    assert "all strict pairs of a ranking are trained on together" in text
    command = json.loads((REFERENCE / "provenance.json").read_text())["command"]
    assert command.startswith("alignarena run quickstart --out ")
    assert f"    {command}\n" in text and "seed 0" in text and "    torch: 2." in text
    assert "world" not in text  # the exact laboratory's settings say nothing of this suite


def test_sft_is_not_compared_with_itself() -> None:
    assert "against SFT" not in model_card(RunFolder.open(REFERENCE), "sft", 0)


def test_text_is_text_whatever_it_holds(run_folders: ModuleType, tmp_path: Path) -> None:
    folder = run_folders.quickstart(tmp_path / "run")
    for nasty in [*run_folders.NASTY, *ENDINGS]:
        known = folder.provenance
        card = {"paper": nasty, "summary": nasty, "differs": nasty, "hyperparameters": {}}
        folder.write_json("provenance.json", {**known, "command": nasty, "methods": {"dpo": card},
                                              "versions": {"torch": nasty}})  # fmt: skip
        folder.write_suite({**folder.suite, "summary": nasty, "model": {"model_name_or_path": nasty},
                            "data": {"dataset": "mine", "path": nasty}})  # fmt: skip
        folder.write_cell("dpo", 0, config={"note": nasty})
        text = model_card(folder, "dpo", 0)
        data = _front_matter(text)
        assert data["tags"] == ["alignarena", "dpo"] and ModelCard(text).data.tags == data["tags"]
        assert "base_model" not in data and "license" not in data
        body = text.split("---\n", 2)[2]
        lines = [line for line in body.splitlines() if not line.startswith("    ")]
        assert not any("<" in line or "`" in line.replace("\\`", "").replace("`--merge`", "") for line in lines), lines
        assert not any(line.startswith("# Owned") or line == "---" for line in lines)
        assert "\x00" not in text and text.encode("utf-8")


def test_a_recipe_says_that_its_weights_are_not_all(run_folders: ModuleType, tmp_path: Path) -> None:
    folder = run_folders.quickstart(tmp_path / "run")
    recipe = {"kind": "Instructed", "policy": {"kind": "AdapterPolicy"}, "instruction": "Be kind."}
    write_json(folder.cell_path("dpo", 0) / "policy" / "recipe.json", recipe)
    text = model_card(folder, "dpo", 0, "adapter")
    assert "The weights are not all" in text and "    instruction: Be kind." in text
    write_json(folder.cell_path("dpo", 0) / "policy" / "recipe.json", {"kind": "AdapterPolicy", "digest": "d"})
    assert "The weights are not all" not in model_card(folder, "dpo", 0, "adapter")


def test_known_datasets_are_named_and_a_local_base_is_not(run_folders: ModuleType, tmp_path: Path) -> None:
    folder = run_folders.quickstart(tmp_path / "run")
    folder.write_suite({**folder.suite, "data": {"dataset": "hh-rlhf"}, "model": {"model_name_or_path": "/models/x"}})
    data = _front_matter(model_card(folder, "dpo", 0))
    assert data["datasets"] == ["Anthropic/hh-rlhf"] and "base_model" not in data


def test_names_of_the_hub() -> None:
    assert is_hub_id("Qwen/Qwen3-0.6B") and is_hub_id("me/x")
    assert not any(map(is_hub_id, ("/models/x", "./x/y", "~/x", "exact-world", "a/b/c", "a b/c", "")))
