"""What TRL trains: a copy of a policy in a model of its own, since TRL patches the model that it is given."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from alignarena.harness.backbone import Backbone
from alignarena.harness.models import load_pretrained, resolve_model
from alignarena.harness.weights import LoraWeights

_ADAPTER = "default"  # what peft calls the only adapter of a model, and TRL expects


def copy_of(backbone: Backbone, variant: str, folder: Path) -> Any:
    """Return a variant as a model by itself: an adapter on a base of its own, or in full fine-tuning fp32 weights.

    Args:
        backbone: What holds the variant.
        variant: Its name.
        folder: Where a full set of weights is written; TRL reads a reference model from where its policy came from.
    """
    weights = backbone.weights
    if isinstance(weights, LoraWeights):
        source, dtype = resolve_model(backbone.config.model_name_or_path), backbone.dtype
        model = get_peft_model(_load(source, dtype, backbone), copy.deepcopy(weights.lora))
        set_peft_model_state_dict(model, weights.state(variant), adapter_name=_ADAPTER)
    else:
        backbone.save(variant, folder)
        model = _load(str(folder), torch.float32, backbone)
    return model.to(backbone.accelerator.device)


def _load(source: str, dtype: torch.dtype, backbone: Backbone) -> Any:
    model = load_pretrained(AutoModelForCausalLM, source, dtype=dtype, use_safetensors=True)
    # a model may name further ends of a turn, at which our samples go on
    model.generation_config.eos_token_id = backbone.tokens.eos_id
    return model


def state_of(model: Any, backbone: Backbone) -> dict[str, Tensor]:
    """Return what was trained of a model, by the names that the backbone's variants use."""
    if isinstance(backbone.weights, LoraWeights):
        return dict(get_peft_model_state_dict(model, adapter_name=_ADAPTER))
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def watch(model: Any, read: Callable[[int, bool], None]) -> None:
    """Report the tokens of each forward pass, padding left out, and whether a gradient will flow back through it.

    The steps of sampling, of one token a sequence, are not: what is sampled is counted once, when it is scored.
    """

    def count(module: nn.Module, given: tuple[Tensor, ...], named: dict[str, Any]) -> None:
        ids, mask = given[0] if given else named["input_ids"], named.get("attention_mask")
        if torch.is_grad_enabled() or ids.shape[1] > 1:
            # sampling leaves a mask without padding out
            read(ids.numel() if mask is None else int(mask.sum()), torch.is_grad_enabled())

    inside = model.get_base_model() if isinstance(model, PeftModel) else model  # sampling passes peft's by
    inside.register_forward_pre_hook(count, with_kwargs=True)
