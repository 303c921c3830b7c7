"""Policies of a real run as folders that transformers and peft load by themselves."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignarena import cli
from alignarena.benchmarks import export as module
from alignarena.benchmarks.export import export
from alignarena.benchmarks.sweep import Sweep, planned
from alignarena.core.errors import BadInput, RunFailed
from alignarena.core.files import read_json
from alignarena.results.store import RunFolder
from alignarena.results.trim import trim

Logps = Callable[[str, list[dict[str, Any]]], list[float]]


@pytest.fixture(scope="module")
def ours(finished_tiny_run: Any) -> Logps:
    """Gives our log-probs of stored completions under a stored policy, one sum a completion."""
    from datasets import Dataset

    from alignarena.harness.cache import Cache
    from alignarena.harness.policy import AdapterPolicy

    suite = planned(str(finished_tiny_run.folder / "suite.resolved.yaml"))
    lab = Sweep(suite, RunFolder(finished_tiny_run.folder), cache=Cache(finished_tiny_run.cache)).seed(0)[1].lab

    def sums(method: str, rows: list[dict[str, Any]]) -> list[float]:
        policy = AdapterPolicy(f"stored {method}", finished_tiny_run.folder / method / "0" / "policy")
        return [sum(one) for one in lab.logps(policy, Dataset.from_list(rows))["logps"]]

    return sums


def _completions(run: Any, method: str) -> list[dict[str, Any]]:
    rows = RunFolder(run.folder).read_cell(method, 0).completions[:6]
    return [{name: row[name] for name in ("prompt_id", "prompt", "completion", "completion_ids")} for row in rows]


@torch.no_grad()
def _theirs(model: Any, folder: Path, rows: list[dict[str, Any]]) -> list[float]:
    tokenizer, sums = AutoTokenizer.from_pretrained(folder), []
    for row in rows:
        chat = [{"role": "user", "content": row["prompt"]}]
        prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
        answer = row["completion_ids"]
        logits = model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1].float()
        sums.append(float(torch.log_softmax(logits, -1).gather(1, torch.tensor(answer)[:, None]).sum()))
    return sums


def test_both_forms_of_a_policy_give_its_log_probs(finished_tiny_run: Any, ours: Logps, tmp_path: Path) -> None:
    rows = _completions(finished_tiny_run, "dpo")
    expected = ours("dpo", rows)
    for merge, loader in ((True, AutoModelForCausalLM), (False, AutoPeftModelForCausalLM)):
        to = export(finished_tiny_run.folder, "dpo", 0, tmp_path / f"merged-{merge}", merge)
        assert _theirs(loader.from_pretrained(to), to, rows) == pytest.approx(expected, abs=1e-4)
    untrained = AutoModelForCausalLM.from_pretrained(export(finished_tiny_run.folder, "base", 0, tmp_path / "b", True))
    assert max(abs(a - b) for a, b in zip(_theirs(untrained, to, rows), expected, strict=True)) > 0.05


def test_the_command_writes_a_folder_with_its_card(
    finished_tiny_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["export", str(finished_tiny_run.folder), "ppo", "0", "--to", str(tmp_path / "ppo")]
    assert cli.main(argv) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "ppo")
    card = ModelCard.load(tmp_path / "ppo" / "README.md")
    assert card.data.to_dict()["library_name"] == "peft" and "AutoPeftModelForCausalLM" in card.text
    assert (tmp_path / "ppo").stat().st_mode & 0o777 == 0o755
    assert [path.name for path in tmp_path.iterdir()] == ["ppo"]  # nothing half made is left
    assert cli.main(argv) == 2
    assert "not an empty folder" in capsys.readouterr().err


@pytest.mark.parametrize("merge", [True, False])
def test_the_code_on_the_card_loads_the_policy_and_how_it_samples(
    finished_tiny_run: Any, tmp_path: Path, merge: bool
) -> None:
    to = export(finished_tiny_run.folder, "dpo", 0, tmp_path / "dpo", merge)
    _, _, section = (to / "README.md").read_text().partition("## How to load it\n\n")
    code = "\n".join(line[4:] for line in section.partition("\n\n")[0].splitlines())
    known: dict[str, Any] = {}
    exec(code.replace('"DIR"', repr(str(to))), known)
    used = known["model"].generation_config
    assert (used.max_new_tokens, used.do_sample, used.top_k) == (11, True, 0)
    prompt = known["tokenizer"]("great", return_tensors="pt")
    assert known["model"].generate(**prompt).shape[1] > prompt["input_ids"].shape[1]


def test_a_recipe_is_exported_with_the_policy_inside(finished_tiny_run: Any, ours: Logps, tmp_path: Path) -> None:
    to = export(finished_tiny_run.folder, "best_of_n", 0, tmp_path / "best", merge=True)
    recipe = read_json(to / "recipe.json")
    assert (recipe["kind"], recipe["n"], recipe["policy"]["kind"]) == ("BestOfNPolicy", 2, "AdapterPolicy")
    assert str(finished_tiny_run.cache) not in (to / "recipe.json").read_text()
    assert "The weights are not all" in (to / "README.md").read_text()
    rows = _completions(finished_tiny_run, "sft")
    model = AutoModelForCausalLM.from_pretrained(to)
    assert _theirs(model, to, rows) == pytest.approx(ours("sft", rows), abs=1e-4)


def test_every_finished_cell_has_a_card_beside_its_policy(finished_tiny_run: Any) -> None:
    for method, seed in RunFolder(finished_tiny_run.folder).cells():
        card = ModelCard.load(finished_tiny_run.folder / method / str(seed) / "policy" / "README.md")
        assert card.data.model_name == f"tiny-{method}-0" and method in card.data.tags
        assert f"alignarena export {finished_tiny_run.folder} {method} 0" in card.text


def test_what_cannot_be_exported_says_what_to_do(finished_tiny_run: Any, tmp_path: Path) -> None:
    run, to = finished_tiny_run.folder, tmp_path / "to"
    for wrong, said in (
        ((run, "dpoo", 0), "no method 'dpoo' in .*did you mean 'dpo'"),
        ((run, "dpo", 7), "no seed 7 of dpo in .*; known: 0$"),
        ((run, "base", 0), "the base model itself; add --merge"),
        ((tmp_path, "dpo", 0), "not a run folder"),
    ):
        with pytest.raises(BadInput, match=said):
            export(*wrong, to)
    with pytest.raises(BadInput, match="a trimmed run keeps no policies; run the suite again"):
        export(trim(run, tmp_path / "small"), "dpo", 0, to)
    half = shutil.copytree(run, tmp_path / "half", ignore=shutil.ignore_patterns("DONE"))
    with pytest.raises(BadInput, match=r"dpo/0 of .* is WAITING, not DONE"):
        export(half, "dpo", 0, to)
    assert not to.exists() and not list(tmp_path.glob(".to.*"))


def test_nothing_is_uploaded_unasked_or_without_a_login(
    finished_tiny_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, dict[str, Any]]] = []

    class Hub:
        def create_repo(self, repository: str, **given: Any) -> None:
            calls.append((repository, given))

        def upload_folder(self, **given: Any) -> None:
            calls.append(("upload", given))

    monkeypatch.setattr(module, "HfApi", Hub)
    monkeypatch.setattr(module, "get_token", lambda: None)
    run = finished_tiny_run.folder
    export(run, "dpo", 0, tmp_path / "quiet", merge=True)
    for wrong, merge, said in (
        ("no owner", True, "write OWNER/NAME"),
        ("me/dpo", False, "a base model that only this machine has .*add --merge"),
        ("me/dpo", True, "not logged in; set HF_TOKEN"),
    ):
        with pytest.raises(BadInput, match=said):
            export(run, "dpo", 0, tmp_path / "to", merge, push_to_hub=wrong)
    assert calls == [] and not (tmp_path / "to").exists()
    monkeypatch.setattr(module, "get_token", lambda: "token")
    export(run, "dpo", 0, tmp_path / "to", merge=True, push_to_hub="me/dpo")
    uploaded = {"repo_id": "me/dpo", "folder_path": tmp_path / "to"}
    assert calls == [("me/dpo", {"private": True, "exist_ok": True}), ("upload", uploaded)]
    monkeypatch.setattr(Hub, "upload_folder", lambda self, **given: _refuse())
    with pytest.raises(RunFailed, match=r"me/dpo could not be uploaded: no network .*is written"):
        export(run, "dpo", 0, tmp_path / "again", merge=True, push_to_hub="me/dpo")


def _refuse() -> None:
    raise OSError("no network")
