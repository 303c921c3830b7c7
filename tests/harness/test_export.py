"""Exported folders, loaded by transformers and peft alone, give the log-probs of our policy."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_model
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from alignarena.core.contract import Sampling
from alignarena.core.errors import BadInput
from alignarena.harness.backbone import Backbone
from alignarena.harness.export import write_adapter, write_model
from alignarena.harness.tokens import TokenSequence

SYSTEM = "w8 \"w9\" {{ w10 }} {% if %} it's \U0001f600 \\ \n w12"
PROMPT, ANSWER = "w1 w2 w3", "w7 w9 w11 w4"
SAMPLING = Sampling(temperature=0.7, top_p=0.9)


def _policy(backbone: Backbone, folder: Path) -> Path:
    """Save a variant that differs from the base, with the head that a policy's folder may hold too."""
    tiny_model.disturb(backbone, "exported", seed=3)
    backbone.save("exported", folder)
    return folder


def _ours(backbone: Backbone, name: str) -> tuple[TokenSequence, torch.Tensor]:
    sequence = TokenSequence(backbone.tokens.prompt_ids(PROMPT), backbone.tokens.completion_ids(ANSWER))
    with torch.no_grad():
        return sequence, backbone.logps(name, backbone.pack([sequence]))


@torch.no_grad()
def _theirs(model: Any, folder: Path) -> torch.Tensor:
    """Log-probs of the answer under a loaded model, the prompt rendered by the exported tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    chat = [{"role": "user", "content": PROMPT}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    answer = [*tokenizer(ANSWER, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    logits = model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1].float()
    return torch.log_softmax(logits, -1).gather(1, torch.tensor(answer)[:, None])[:, 0]


@pytest.fixture(params=[True, False], ids=["lora", "full"])
def backbone(request: pytest.FixtureRequest, tiny_model_dir: Path) -> Backbone:
    return Backbone(tiny_model.config(tiny_model_dir, use_peft=request.param, system_message=SYSTEM))


def test_a_merged_model_has_the_policys_log_probs(backbone: Backbone, tmp_path: Path) -> None:
    policy, to = _policy(backbone, tmp_path / "policy"), tmp_path / "model"
    to.mkdir()
    write_model(policy, to, backbone.config, SAMPLING, "fp32")
    model = AutoModelForCausalLM.from_pretrained(to)
    assert not isinstance(model, PeftModel)
    found = _theirs(model, to)
    torch.testing.assert_close(found, _ours(backbone, "exported")[1], atol=1e-4, rtol=0)
    assert (found - _ours(backbone, "base")[1]).abs().max() > 0.01  # it is not the base that was exported


def test_an_adapter_has_the_policys_log_probs_on_the_base_it_names(tiny_backbone: Backbone, tmp_path: Path) -> None:
    policy, to = _policy(tiny_backbone, tmp_path / "policy"), tmp_path / "adapter"
    to.mkdir()
    write_adapter(policy, to, tiny_backbone.config, SAMPLING)
    try:
        found = _theirs(AutoPeftModelForCausalLM.from_pretrained(to), to)
        torch.testing.assert_close(found, _ours(tiny_backbone, "exported")[1], atol=1e-4, rtol=0)
        assert (found - _ours(tiny_backbone, "base")[1]).abs().max() > 0.01
    finally:
        tiny_backbone.drop("exported")
    assert not (to / "head.safetensors").exists()


def test_merging_keeps_updates_that_bf16_would_round_away(tiny_model_dir: Path, tmp_path: Path) -> None:
    backbone = Backbone(replace(tiny_model.config(tiny_model_dir), precision="bf16"))
    tiny_model.disturb(backbone, "exported", seed=3, scale=0.01)
    backbone.save("exported", tmp_path / "policy")
    (tmp_path / "model").mkdir()
    write_model(tmp_path / "policy", tmp_path / "model", backbone.config, SAMPLING, "bf16")
    merged = load_file(tmp_path / "model" / "model.safetensors")["model.layers.0.mlp.up_proj.weight"]
    base = load_file(tiny_model_dir / "model.safetensors")["model.layers.0.mlp.up_proj.weight"].bfloat16().float()
    assert merged.dtype == torch.float32
    state = backbone.weights.state("exported")
    a, b = (state[f"base_model.model.model.layers.0.mlp.up_proj.lora_{one}.weight"] for one in "AB")
    torch.testing.assert_close(merged, base + 2.0 * b @ a)  # lora_alpha / r is 32 / 16


def test_the_folder_says_how_the_policy_was_used(backbone: Backbone, tmp_path: Path) -> None:
    policy, to = _policy(backbone, tmp_path / "policy"), tmp_path / "model"
    to.mkdir()
    write_model(policy, to, backbone.config, SAMPLING, "fp32")
    used = GenerationConfig.from_pretrained(to)
    assert (used.do_sample, used.temperature, used.top_p, used.top_k, used.max_new_tokens) == (True, 0.7, 0.9, 0, 12)
    assert used.eos_token_id == backbone.tokens.eos_id
    tokenizer = AutoTokenizer.from_pretrained(to)
    talks: list[list[dict[str, str]]] = [
        [{"role": "user", "content": "w5"}],
        [{"role": "system", "content": "w6"}, {"role": "user", "content": "w5"}],
        [{"role": "user", "content": "w5"}, {"role": "assistant", "content": "w8"}, {"role": "user", "content": "w9"}],
    ]
    for talk in talks:
        ids = tokenizer.apply_chat_template(talk, add_generation_prompt=True, return_dict=False)
        assert tuple(ids) == backbone.tokens.prompt_ids(talk)
    assert f"<system> {SYSTEM} <user>" in tokenizer.apply_chat_template(talks[0], tokenize=False)


def test_a_base_without_a_template_is_exported_with_the_plain_one(tiny_model_dir: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(tiny_model_dir, tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    backbone = Backbone(tiny_model.config(bare))
    assert backbone.tokens.tokenizer.chat_template is None
    (tmp_path / "policy").mkdir()  # a policy of the base itself holds no weights
    (tmp_path / "model").mkdir()
    write_model(tmp_path / "policy", tmp_path / "model", backbone.config, SAMPLING, "fp32")
    found = _theirs(AutoModelForCausalLM.from_pretrained(tmp_path / "model"), tmp_path / "model")
    torch.testing.assert_close(found, _ours(backbone, "base")[1], atol=1e-4, rtol=0)


def test_what_is_no_adapter_is_not_exported_as_one(backbone: Backbone, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    with pytest.raises(BadInput, match="the base model itself; add --merge"):
        write_adapter(tmp_path / "base", tmp_path, backbone.config, SAMPLING)
    if not backbone.config.use_peft:
        with pytest.raises(BadInput, match="a whole model; add --merge"):
            write_adapter(_policy(backbone, tmp_path / "policy"), tmp_path, backbone.config, SAMPLING)
