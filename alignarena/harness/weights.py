"""What a variant of the base model is made of: a LoRA adapter on one frozen base, or a full set of weights.

A policy, its reference, a value and a reward model are variants with names of their own; ``BASE`` is the model as
given. With LoRA a variant adds a few million numbers; in full fine-tuning it is a model of its own.
"""

from __future__ import annotations

import copy
import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from peft import LoraConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from alignarena.core.model import ModelConfig
from alignarena.harness.fused_lora import fuse
from alignarena.harness.fused_norm import fuse_norms

BASE = "base"


class Weights(Protocol):
    """The variants in memory."""

    resident: int  # variants kept in memory beside those in training
    flops_per_token: float  # of a forward and backward pass, per parameter: what a frozen weight's gradient saves

    def add(self, name: str, like: str, seed: int) -> None:
        """Add a variant: a copy of another; LoRA's noise where that is the base is drawn from the seed."""

    def drop(self, name: str) -> None:
        """Forget a variant."""

    def activate(self, name: str) -> Any:
        """Return the causal language model that computes with this variant."""

    def parameters_of(self, name: str) -> list[nn.Parameter]:
        """Return what is trained of a variant."""

    def train(self, name: str, on: bool) -> None:
        """Bring a variant into the precision of training and let gradients flow, or take it back."""

    def fixed(self) -> AbstractContextManager[None]:
        """Hold what is derived from weights that nothing changes in here."""

    def head_of(self, hidden: Tensor, name: str) -> Tensor:
        """Return the logits (B, V) of hidden states (B, D), where the head is one linear layer and nothing more."""

    def state(self, name: str) -> dict[str, Tensor]:
        """Return the weights of a variant as they are."""

    def set_state(self, name: str, state: dict[str, Tensor]) -> None:
        """Replace the weights of a variant."""

    def save(self, name: str, folder: Path) -> None:
        """Write a variant as its library reads it, safetensors."""

    def read(self, name: str, folder: Path) -> None:
        """Add a variant from where it was saved."""


class LoraWeights:
    """Adapters on one frozen base, in fp32."""

    resident = 8
    flops_per_token = 4.0
    FILE: ClassVar[str] = "adapter_model.safetensors"

    def __init__(self, base: Any, config: ModelConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        self.lora = LoraConfig(
            r=config.lora_r, lora_alpha=config.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        self.model = PeftModel(base, self.lora, adapter_name="blank")
        self.model.to(device).eval()
        self._casts = fuse(self.model)
        fuse_norms(self.model)
        self._causal_lm = self.model.get_base_model()
        self._training: set[str] = set()
        self._parameters: dict[str, list[nn.Parameter]] = {}  # of each adapter: finding them is a walk over all modules
        self._active: str | None = None  # switching walks over all modules: 20 ms for 30 blocks, so only on a change

    def add(self, name: str, like: str = BASE, seed: int = 0) -> None:
        """Add a copy of an adapter, or a new one that changes nothing yet."""
        self._active = None
        self._parameters.pop(name, None)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model.add_adapter(name, copy.deepcopy(self.lora))
        if like != BASE:
            self.set_state(name, {key: value.clone() for key, value in self.state(like).items()})
        self.model.to(self.device)

    def drop(self, name: str) -> None:
        """Forget an adapter."""
        self._active = None
        self.model.delete_adapter(name)
        self._parameters.pop(name, None)
        self._training.discard(name)

    def activate(self, name: str) -> Any:
        """Switch to one adapter, without freezing the others that are being trained."""
        if name == self._active:
            return self._causal_lm
        if name == BASE:
            self.model.base_model.disable_adapter_layers()
        else:
            self.model.base_model.enable_adapter_layers()
            self.model.base_model.set_adapter(name)
        for other in self._training | {name} - {BASE}:  # peft froze or thawed whatever it switched
            for parameter in self.parameters_of(other):
                parameter.requires_grad_(other in self._training)
        self._active = name
        return self._causal_lm

    def parameters_of(self, name: str) -> list[nn.Parameter]:
        """Return the parameters of an adapter."""
        marker = f".{name}."
        if name not in self._parameters:
            self._parameters[name] = [p for key, p in self.model.named_parameters() if marker in key]
        return list(self._parameters[name])

    def train(self, name: str, on: bool) -> None:
        """Let gradients flow into an adapter, or no longer."""
        (self._training.add if on else self._training.discard)(name)
        self._active = None
        self.activate(name)

    def fixed(self) -> AbstractContextManager[None]:
        """Cast each adapter once."""
        return self._casts.kept()

    def head_of(self, hidden: Tensor, name: str) -> Tensor:
        """Return the logits; the head has no adapter."""
        return self._casts.base.product(hidden, self.activate(name).get_output_embeddings())

    def state(self, name: str) -> dict[str, Tensor]:
        """Return the weights of an adapter, fp32."""
        return dict(get_peft_model_state_dict(self.model, adapter_name=name))

    def set_state(self, name: str, state: dict[str, Tensor]) -> None:
        """Replace the weights of an adapter."""
        set_peft_model_state_dict(self.model, state, adapter_name=name)

    def save(self, name: str, folder: Path) -> None:
        """Write an adapter as peft reads it."""
        save_file({key: value.contiguous().cpu() for key, value in self.state(name).items()},
                  folder / self.FILE, metadata={"format": "pt"})  # fmt: skip
        lora = self.lora.to_dict() | {"base_model_name_or_path": self.config.model_name_or_path}
        lora["target_modules"] = sorted(self.model.peft_config[name].target_modules)
        (folder / "adapter_config.json").write_text(json.dumps(lora, indent=1, sort_keys=True, default=_plain))

    def read(self, name: str, folder: Path) -> None:
        """Add a stored adapter."""
        self.add(name)
        self.set_state(name, load_file(folder / self.FILE))


class FullWeights:
    """A model a variant: fp32 while it is trained, the precision of the base otherwise."""

    resident = 2
    flops_per_token = 6.0
    FILE: ClassVar[str] = "model.safetensors"

    def __init__(self, base: Any, config: ModelConfig, device: torch.device) -> None:
        self._models: dict[str, Any] = {BASE: base.to(device).eval()}
        fuse_norms(base)
        self._dtype = base.dtype

    def add(self, name: str, like: str = BASE, seed: int = 0) -> None:
        """Add a copy of a model; nothing is drawn."""
        model = copy.deepcopy(self._models[like])
        model.requires_grad_(False)
        self._models[name] = model.to(self._dtype)

    def drop(self, name: str) -> None:
        """Forget a model."""
        del self._models[name]

    def activate(self, name: str) -> Any:
        """Return the model."""
        return self._models[name]

    def parameters_of(self, name: str) -> list[nn.Parameter]:
        """Return the parameters of a model, each once."""
        return list(self._models[name].parameters())

    def train(self, name: str, on: bool) -> None:
        """Turn a model to fp32 with gradients, or back."""
        model = self._models[name]
        model.to(torch.float32 if on else self._dtype)
        model.requires_grad_(on)

    def fixed(self) -> AbstractContextManager[None]:
        """Hold nothing: autocast keeps what it casts."""
        return nullcontext()

    def head_of(self, hidden: Tensor, name: str) -> Tensor:
        """Return the logits."""
        return self.activate(name).get_output_embeddings()(hidden)  # type: ignore[no-any-return]

    def state(self, name: str) -> dict[str, Tensor]:
        """Return the weights of a model, tied ones once."""
        return {key: parameter.detach() for key, parameter in self._models[name].named_parameters()}

    def set_state(self, name: str, state: dict[str, Tensor]) -> None:
        """Replace the weights of a model."""
        own = self.state(name)
        for key, value in state.items():
            own[key].copy_(value)

    def save(self, name: str, folder: Path) -> None:
        """Write a model as transformers reads it, in the precision that it computes with."""
        state = {key: value.to(self._dtype).contiguous().cpu() for key, value in self.state(name).items()}
        save_file(state, folder / self.FILE, metadata={"format": "pt"})
        self._models[name].config.save_pretrained(folder)

    def read(self, name: str, folder: Path) -> None:
        """Add a stored model."""
        self.add(name)
        self.set_state(name, load_file(folder / self.FILE))


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, set | frozenset) else str(value)
