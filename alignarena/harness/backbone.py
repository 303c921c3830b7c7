"""One frozen base model with many LoRA adapters: every policy, reference, value and reward model of a comparison.

Only adapters and scalar heads are trained, so what a policy adds to the base is a few million numbers, and a reference
forward is the same network with another adapter switched on.
"""

from __future__ import annotations

import copy
import json
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from accelerate import Accelerator
from peft import LoraConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignarena.core.digest import digest
from alignarena.core.model import ModelConfig
from alignarena.harness.device import choose_precision, set_threads
from alignarena.harness.logps import logits_logps, token_logps
from alignarena.harness.models import load_pretrained, resolve_model
from alignarena.harness.packing import Pack, pack
from alignarena.harness.tokens import Tokens, TokenSequence

BASE = "base"  # the name of no adapter: the model as given
_RESIDENT = 8  # adapters kept in memory beside the ones being trained
_PROBE_TOLERANCE = {"fp32": 1e-3, "bf16": 0.5}  # nats; bf16 rounds logits near 20 to 1/16


class Backbone:
    """The base model, its tokenizer and the adapters that are loaded now."""

    def __init__(self, config: ModelConfig) -> None:
        _quieten()
        self.config = config
        self.accelerator = Accelerator()
        set_threads()
        self.precision, self.precision_reason = choose_precision(config.precision)
        source = resolve_model(config.model_name_or_path)
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        self.tokens = Tokens(load_pretrained(AutoTokenizer, source), config)
        base = load_pretrained(AutoModelForCausalLM, source, dtype=dtype, use_safetensors=True)
        base.requires_grad_(False)
        for module in base.modules():  # with dropout on, a PPO ratio is not 1 at the first step
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        self.digest = digest(_weights_digest(base), self.tokens.tokenizer.chat_template, self.precision, config)
        self.lora = LoraConfig(
            r=config.lora_r, lora_alpha=config.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        self.parameters = sum(p.numel() for p in base.parameters())
        self.model = PeftModel(base, self.lora, adapter_name="blank")
        self.model.to(self.accelerator.device).eval()
        self.causal_lm = self.model.get_base_model()
        self.decoder = self.causal_lm.base_model if hasattr(self.causal_lm, "base_model") else self.causal_lm.model
        self.head: Any = self.causal_lm.get_output_embeddings()
        self.heads: dict[str, nn.Linear] = {}  # scalar heads of reward and value models, by adapter
        self.trainable: set[str] = set()
        self.reference = BASE  # of the fit under way: never forgotten while it lasts
        self._loaded: list[str] = []
        self.plain_head = self.shares_prompts = True
        self._probe()

    # -- adapters -----------------------------------------------------------------------------------------------------

    def load(self, name: str, folder: Path) -> None:
        """Load an adapter (and its scalar head, if it has one) unless it is in memory; forget the least used."""
        if name in self._loaded:
            self._loaded.remove(name)
        else:
            self.add(name)
            self.set_state(name, load_file(folder / "adapter_model.safetensors"))
            head = folder / "head.safetensors"
            if head.is_file():
                self.set_head(name, load_file(head))
        self._loaded.append(name)
        idle = [other for other in self._loaded if other not in self.trainable | {self.reference}]
        for other in idle[:-_RESIDENT]:
            self.drop(other)

    def add(self, name: str, like: str | None = None, seed: int = 0) -> None:
        """Add an adapter: a copy of another, or a new one that changes nothing yet."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model.add_adapter(name, copy.deepcopy(self.lora))
        if like is not None and like != BASE:
            self.set_state(name, {key: value.clone() for key, value in self.state(like).items()})
        self.model.to(self.accelerator.device)

    def drop(self, name: str) -> None:
        """Forget an adapter and its head."""
        self.model.delete_adapter(name)
        self.heads.pop(name, None)
        self.trainable.discard(name)
        if name in self._loaded:
            self._loaded.remove(name)

    def state(self, name: str) -> dict[str, Tensor]:
        """Return the weights of an adapter, fp32."""
        return dict(get_peft_model_state_dict(self.model, adapter_name=name))

    def set_state(self, name: str, state: dict[str, Tensor]) -> None:
        """Replace the weights of an adapter."""
        set_peft_model_state_dict(self.model, state, adapter_name=name)

    def add_head(self, name: str, seed: int) -> None:
        """Give an adapter a scalar head, weights N(0, 1/(D+1)) and bias 0 (Huang et al. 2024)."""
        width = self.head.weight.shape[1]
        head = nn.Linear(width, 1)
        noise = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            head.weight.normal_(0.0, 1.0 / math.sqrt(width + 1), generator=noise)
            head.bias.zero_()
        self.heads[name] = head.to(self.accelerator.device)

    def set_head(self, name: str, state: dict[str, Tensor]) -> None:
        """Give an adapter the scalar head of a stored state."""
        self.add_head(name, seed=0)
        self.heads[name].load_state_dict(state)

    def save(self, name: str, folder: Path) -> None:
        """Write an adapter as peft reads it, safetensors, with its scalar head beside it."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file({key: value.contiguous().cpu() for key, value in self.state(name).items()},
                  folder / "adapter_model.safetensors", metadata={"format": "pt"})  # fmt: skip
        lora = self.lora.to_dict() | {"base_model_name_or_path": self.config.model_name_or_path}
        lora["target_modules"] = sorted(self.model.peft_config[name].target_modules)
        (folder / "adapter_config.json").write_text(json.dumps(lora, indent=1, sort_keys=True, default=_plain))
        if name in self.heads:
            save_file({k: v.contiguous().cpu() for k, v in self.heads[name].state_dict().items()},
                      folder / "head.safetensors")  # fmt: skip

    @contextmanager
    def training(self, *names: str) -> Iterator[list[nn.Parameter]]:
        """Let gradients flow into some adapters and their heads; yields their parameters."""
        self.trainable.update(names)
        for name in names:
            self.switch(name)
        try:
            yield [p for name in names for p in self.parameters_of(name)]
        finally:
            self.trainable.difference_update(names)

    def parameters_of(self, name: str) -> list[nn.Parameter]:
        """Return the parameters of an adapter, then those of its head."""
        marker = f".{name}."
        adapter = [p for key, p in self.model.named_parameters() if marker in key]
        return adapter + (list(self.heads[name].parameters()) if name in self.heads else [])

    def switch(self, name: str) -> None:
        """Make one adapter the active one, without freezing the others that are being trained."""
        if name == BASE:
            self.model.base_model.disable_adapter_layers()
        else:
            self.model.base_model.enable_adapter_layers()
            self.model.base_model.set_adapter(name)
        for other in self.trainable | {name} - {BASE}:  # peft froze or thawed whatever it switched
            for parameter in self.parameters_of(other):
                parameter.requires_grad_(other in self.trainable)

    # -- forward ------------------------------------------------------------------------------------------------------

    def hidden(self, name: str, packed: Pack) -> Tensor:
        """Return the final hidden states (R * L, D) of a pack under an adapter."""
        self.switch(name)
        with self.autocast():
            output = self.decoder(
                input_ids=packed.input_ids,
                attention_mask=packed.attention_mask,
                position_ids=packed.position_ids,
                use_cache=False,  # with a cache, restarted positions let packed completions see each other
            )
        return output.last_hidden_state.flatten(0, 1)  # type: ignore[no-any-return]

    def logps(self, name: str, packed: Pack) -> Tensor:
        """Return log-probs (N,) in nats of the completion tokens of a pack."""
        if self.plain_head:
            return token_logps(self.hidden(name, packed)[packed.source], self.head, packed.target)
        self.switch(name)
        with self.autocast():
            logits = self.causal_lm(
                input_ids=packed.input_ids, attention_mask=packed.attention_mask, position_ids=packed.position_ids,
                use_cache=False,
            ).logits  # fmt: skip
        return logits_logps(logits.flatten(0, 1)[packed.source], packed.target)

    def scores(self, name: str, packed: Pack) -> Tensor:
        """Return the scalar head at the last token of each sequence (S,)."""
        return self.heads[name](self.hidden(name, packed)[packed.last].float())[:, 0]  # type: ignore[no-any-return]

    def values(self, name: str, packed: Pack) -> Tensor:
        """Return the scalar head before each completion token (N,)."""
        return self.heads[name](self.hidden(name, packed)[packed.source].float())[:, 0]  # type: ignore[no-any-return]

    def autocast(self) -> torch.autocast:
        """Run the frozen weights and the fp32 adapters in one precision (measured 1.2-1.5x over mixing them)."""
        return torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def pack(self, sequences: Sequence[TokenSequence]) -> Pack:
        """Lay sequences out for this model on its device."""
        return pack(sequences, self.shares_prompts).to(self.accelerator.device)

    @torch.no_grad()
    def _probe(self) -> None:
        """Compare the fast paths with a plain forward once; a model they do not fit takes the plain one."""
        vocabulary = self.head.weight.shape[0]
        prompt = tuple(3 + i % (vocabulary - 3) for i in range(5, 12))
        completions = [tuple((7 * k + i) % vocabulary for i in range(4 + k)) for k in range(1, 3)]
        sequences = [TokenSequence(prompt, completion) for completion in completions]
        self.plain_head, self.shares_prompts = False, False
        plain = self.logps(BASE, self.pack(sequences))
        tolerance = _PROBE_TOLERANCE[self.precision]
        for path in ("plain_head", "shares_prompts"):
            setattr(self, path, True)
            try:
                worst = (self.logps(BASE, self.pack(sequences)) - plain).abs().max().item()
            except (RuntimeError, ValueError, TypeError):
                worst = math.inf
            setattr(self, path, worst <= tolerance)


def _quieten() -> None:
    """Keep other libraries' bars and notes about adapters that come and go out of the progress display."""
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    warnings.filterwarnings("ignore", message="Adapter .* was active which is now deleted")
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)


def _weights_digest(model: nn.Module) -> str:
    """Name a model by its shapes and a sample of its weights: any training changes them all."""
    sums = {name: [list(p.shape), p.detach().flatten()[:: max(1, p.numel() // 64)][:64].float().tolist()]
            for name, p in model.named_parameters()}  # fmt: skip
    return digest(sums)


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, set | frozenset) else str(value)
