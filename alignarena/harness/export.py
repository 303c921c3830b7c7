"""A policy as a folder that transformers and peft load, with no need of this package."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from alignarena.core.contract import Sampling
from alignarena.core.errors import BadInput
from alignarena.core.model import ModelConfig
from alignarena.harness.models import load_pretrained, resolve_model
from alignarena.harness.tokens import PLAIN_TEMPLATE, Tokens
from alignarena.harness.weights import FullWeights, LoraWeights

_ADAPTER_CONFIG = "adapter_config.json"


def write_adapter(policy: Path, to: Path, config: ModelConfig, sampling: Sampling) -> None:
    """Write a policy as a peft adapter on the base model that it was trained on, and its tokenizer.

    Args:
        policy: The policy of a cell, as it was saved.
        to: An empty folder.
        config: The base model and its limits.
        sampling: How completions were drawn.

    Raises:
        BadInput: The policy is no adapter: the base model itself, or a model of its own.
        RunFailed: The base model's tokenizer cannot be read.
    """
    if not (policy / LoraWeights.FILE).is_file():
        what = "a whole model" if (policy / FullWeights.FILE).is_file() else "the base model itself"
        raise BadInput(f"{policy} holds no adapter: this policy is {what}; add --merge to export a model folder")
    shutil.copyfile(policy / LoraWeights.FILE, to / LoraWeights.FILE)
    adapter = json.loads((policy / _ADAPTER_CONFIG).read_text())
    adapter |= {"base_model_name_or_path": resolve_model(config.model_name_or_path), "inference_mode": True}
    (to / _ADAPTER_CONFIG).write_text(json.dumps(adapter, indent=2, sort_keys=True) + "\n")
    _write_use(to, config, sampling)


def write_model(policy: Path, to: Path, config: ModelConfig, sampling: Sampling, precision: str) -> None:
    """Write a policy as a model folder: an adapter merged into its base, a model of its own, or the base.

    An adapter is merged in fp32 into the weights that it was trained on, and stored so: bf16 would round small updates
    away.

    Args:
        policy: The policy of a cell, as it was saved.
        to: An empty folder.
        config: The base model and its limits.
        sampling: How completions were drawn.
        precision: What the base model computed in, ``fp32`` or ``bf16``.

    Raises:
        RunFailed: The base model cannot be read.
    """
    _model(policy, config, torch.bfloat16 if precision == "bf16" else torch.float32).save_pretrained(to)
    _write_use(to, config, sampling)


def _model(policy: Path, config: ModelConfig, dtype: torch.dtype) -> Any:
    if (policy / FullWeights.FILE).is_file():
        return load_pretrained(AutoModelForCausalLM, str(policy), dtype="auto")
    base = load_pretrained(
        AutoModelForCausalLM, resolve_model(config.model_name_or_path), dtype=dtype, use_safetensors=True
    )
    if not (policy / LoraWeights.FILE).is_file():
        return base
    return PeftModel.from_pretrained(base.float(), policy).merge_and_unload()


def _write_use(to: Path, config: ModelConfig, sampling: Sampling) -> None:
    """Write how the policy is used: its tokenizer, the prompt it was trained on, and how it was sampled."""
    source = resolve_model(config.model_name_or_path)
    tokens = Tokens(load_pretrained(AutoTokenizer, source), config)
    tokens.tokenizer.chat_template = chat_template(tokens)
    tokens.tokenizer.save_pretrained(to)
    GenerationConfig(
        do_sample=sampling.temperature > 0,
        temperature=sampling.temperature or None,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        max_new_tokens=sampling.max_new_tokens or config.max_new_tokens,
        eos_token_id=tokens.eos_id,
        pad_token_id=tokens.tokenizer.pad_token_id,
    ).save_pretrained(to)


def chat_template(tokens: Tokens) -> str:
    """Return a chat template that renders a conversation as the comparison did, its system message included."""
    template: str = tokens.tokenizer.get_chat_template() if tokens.tokenizer.chat_template else PLAIN_TEMPLATE
    system = tokens.config.system_message
    if system is None:
        return template
    first = f"[{{'role': 'system', 'content': {system!a}}}]"  # as Jinja reads a literal
    return f"{{% if messages[0]['role'] != 'system' %}}{{% set messages = {first} + messages %}}{{% endif %}}{template}"
