"""The base model and its variants: every policy, reference, value and reward model of a comparison.

The forward passes are here: log-probs, scores and values of packed sequences under a variant, on the fastest path that
gives what a plain forward gives; a probe at load compares them, so no model is told apart by its name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from alignarena.core.digest import digest
from alignarena.core.errors import BadInput
from alignarena.core.model import ModelConfig
from alignarena.harness.attention import BLOCKS
from alignarena.harness.device import choose_precision, reuse_memory, set_threads
from alignarena.harness.flex import sees_all
from alignarena.harness.fused_attention import fuse_attention
from alignarena.harness.logps import logits_logps, token_logps
from alignarena.harness.models import load_pretrained, resolve_model
from alignarena.harness.packing import Form, Pack, pack
from alignarena.harness.progress import quieten
from alignarena.harness.tokens import Tokens, TokenSequence
from alignarena.harness.weights import BASE, FullWeights, LoraWeights, Weights

_PROBE_TOLERANCE = {"fp32": 1e-3, "bf16": 0.1}  # mean over tokens, nats: bf16 rounds logits near 20 to 1/16
# Rare words that both answers share: a completion that sees its neighbour copies them, and is found out.
_PROBE_PROMPTS = tuple(  # long enough a beginning to be shared
    f"After three long winters at sea the old sailor came home to his village by the lake and sat down. {question}"
    for question in ("What did he bring?", "Tell me, in a few words, what lay on the table that morning.")
)
_PROBE_ANSWERS = ("Seven zinc buttons, a quince and a violet umbrella.", "Seven zinc buttons, and a quince in violet.")


class Backbone:
    """The base model, its tokenizer and the variants that are in memory."""

    def __init__(self, config: ModelConfig) -> None:
        quieten()
        self.config = config
        self.accelerator = Accelerator()
        set_threads()
        reuse_memory()
        self.precision, self.precision_reason = choose_precision(config.precision)
        source = resolve_model(config.model_name_or_path)
        self.dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        self.tokens = Tokens(load_pretrained(AutoTokenizer, source), config)
        base = load_pretrained(AutoModelForCausalLM, source, dtype=self.dtype, use_safetensors=True)
        base.requires_grad_(False)
        _without_dropout(base)
        anywhere = replace(config, model_name_or_path="")  # wherever it lies, it is the same model
        self.digest = digest(_weights_digest(base), _settings(base), self.tokens.digest, self.precision, anywhere)
        self.parameters = sum(p.numel() for p in base.parameters())
        self._base = base
        kind = LoraWeights if config.use_peft else FullWeights
        self.weights: Weights = kind(base, config, self.accelerator.device)
        self.heads: dict[str, nn.Linear] = {}  # scalar heads of reward and value models, by variant
        self.trainable: set[str] = set()
        self.reference = BASE  # of the fit under way: never forgotten while it lasts
        self._loaded: list[str] = []
        self.plain_head = False  # the head is one linear layer, nothing after it
        self.form: Form = "plain"  # how sequences are laid out
        self.shares_prompts = False  # rollouts keep each prompt's keys once
        self._probe()

    # -- variants -----------------------------------------------------------------------------------------------------

    def load(self, name: str, folder: Path) -> None:
        """Load a variant (and its scalar head, if it has one) unless it is in memory; forget the least used."""
        if name in self._loaded:
            self._loaded.remove(name)
        else:
            self.weights.read(name, folder)
            head = folder / "head.safetensors"
            if head.is_file():
                self.add_head(name, seed=0)
                self.heads[name].load_state_dict(load_file(head))
        self._loaded.append(name)
        idle = [other for other in self._loaded if other not in self.trainable | {self.reference}]
        for other in idle[: -self.weights.resident]:
            self.drop(other)

    def add(self, name: str, like: str = BASE, seed: int = 0) -> None:
        """Add a copy of a variant."""
        self.weights.add(name, like, seed)

    def drop(self, name: str) -> None:
        """Forget a variant and its head."""
        self.weights.drop(name)
        self.heads.pop(name, None)
        self.trainable.discard(name)
        if name in self._loaded:
            self._loaded.remove(name)

    def add_head(self, name: str, seed: int) -> None:
        """Give a variant a scalar head, weights N(0, 1/(D+1)) and bias 0 (Huang et al. 2024)."""
        width = self._base.get_output_embeddings().weight.shape[1]
        head = nn.Linear(width, 1)
        noise = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            head.weight.normal_(0.0, 1.0 / math.sqrt(width + 1), generator=noise)
            head.bias.zero_()
        self.heads[name] = head.to(self.accelerator.device)

    def save(self, name: str, folder: Path) -> None:
        """Write a variant as its library reads it, with its scalar head beside it."""
        folder.mkdir(parents=True, exist_ok=True)
        self.weights.save(name, folder)
        if name in self.heads:
            save_file({k: v.contiguous().cpu() for k, v in self.heads[name].state_dict().items()},
                      folder / "head.safetensors")  # fmt: skip

    @contextmanager
    def training(self, *names: str) -> Iterator[list[nn.Parameter]]:
        """Let gradients flow into some variants and their heads; yields their parameters."""
        self.trainable.update(names)
        for name in names:
            self.weights.train(name, True)
        try:
            with self._checkpointing():
                yield [p for name in names for p in self.parameters_of(name)]
        finally:
            for name in names:
                self.weights.train(name, False)
            self.trainable.difference_update(names)

    @contextmanager
    def _checkpointing(self) -> Iterator[None]:
        """Recompute activations in the backward pass while training, where the configuration asks for it."""
        if not self.config.gradient_checkpointing:
            yield
            return
        if self.config.use_peft and len(self.trainable) > 1:
            # the backward pass would recompute one adapter's layers with the other switched on
            raise BadInput(
                "model.gradient_checkpointing: a policy and a value model on one LoRA backbone cannot recompute; "
                "set it to false, or model.use_peft to false"
            )
        models = [self.weights.activate(name) for name in sorted(self.trainable)]
        for model in models:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.train()  # transformers checkpoints in training mode only; there is no dropout to wake
        try:
            yield
        finally:
            for model in models:
                model.gradient_checkpointing_disable()
                model.eval()

    def parameters_of(self, name: str) -> list[nn.Parameter]:
        """Return the parameters of a variant, then those of its head."""
        return self.weights.parameters_of(name) + (list(self.heads[name].parameters()) if name in self.heads else [])

    # -- forward ------------------------------------------------------------------------------------------------------

    def decode(self, name: str, **inputs: Any) -> Any:
        """Run a variant up to its final hidden states; nothing is cached unless asked for."""
        model = self.weights.activate(name)
        decoder = model.base_model if hasattr(model, "base_model") else model.model
        with self.autocast():
            # with a cache, restarted positions would let packed completions see each other
            return decoder(**{"use_cache": False, **inputs})

    def hidden(self, name: str, packed: Pack) -> Tensor:
        """Return the final hidden states (R * L, D) of a pack under a variant."""
        output = self.decode(name, input_ids=packed.input_ids, position_ids=packed.position_ids, **packed.attention)
        return output.last_hidden_state.flatten(0, 1)  # type: ignore[no-any-return]

    def logps(self, name: str, packed: Pack) -> Tensor:
        """Return log-probs (N,) in nats of the completion tokens of a pack."""
        if self.plain_head:
            hidden = self.hidden(name, packed)[packed.source].to(self.dtype)
            return token_logps(hidden, self.head(name), packed.target)
        model = self.weights.activate(name)
        with self.autocast():
            logits = model(
                input_ids=packed.input_ids, position_ids=packed.position_ids, use_cache=False, **packed.attention
            ).logits
        return logits_logps(logits.flatten(0, 1)[packed.source], packed.target)

    def scores(self, name: str, packed: Pack) -> Tensor:
        """Return the scalar head at the last token of each sequence (S,)."""
        return self.heads[name](self.hidden(name, packed)[packed.last].float())[:, 0]  # type: ignore[no-any-return]

    def values(self, name: str, packed: Pack) -> Tensor:
        """Return the scalar head before each completion token (N,)."""
        return self.heads[name](self.hidden(name, packed)[packed.source].float())[:, 0]  # type: ignore[no-any-return]

    def embeddings(self, name: str, packed: Pack) -> Tensor:
        """Return the mean final hidden state before each token of a completion, its end included (S, D)."""
        hidden = self.hidden(name, packed)[packed.source].float()
        return torch.stack([each.mean(0) for each in torch.split(hidden, list(packed.lengths))])

    def head(self, name: str) -> nn.Linear:
        """Return the output embedding of a variant (V, D)."""
        return self.weights.activate(name).get_output_embeddings()  # type: ignore[no-any-return]

    def autocast(self) -> torch.autocast:
        """Run frozen weights and fp32 adapters in one precision (measured 1.2-1.5x over mixing them)."""
        return torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def pack(self, sequences: Sequence[TokenSequence]) -> Pack:
        """Lay sequences out for this model on its device."""
        return pack(sequences, self.form, self.accelerator.device)

    @contextmanager
    def sampling(self, name: str) -> Iterator[None]:
        """Hold one precision, and the attention that rollouts share prompts with, while a variant is sampled."""
        model = self.weights.activate(name)
        own = model.config._attn_implementation
        if self.shares_prompts:
            model.set_attn_implementation(BLOCKS)
        try:
            with self.autocast(), self.weights.fixed():
                yield
        finally:
            model.set_attn_implementation(own)

    @torch.no_grad()
    def _probe(self) -> None:
        """Compare the fast paths with a plain forward once; leave the model with the fastest that gives the same."""
        plain = self._probe_logps()
        self.plain_head = True
        self.plain_head = self._close(self._probe_logps(), plain)
        implementations = self._implementations()
        fit: list[Form] = ["plain"]
        for form in list(implementations)[1:]:
            try:
                self.form = form
                self._base.set_attn_implementation(implementations[form])
                if self._close(self._probe_logps(), plain):
                    fit.append(form)
            except (RuntimeError, ValueError, TypeError):  # the model does not take this form
                continue
        self.form = fit[-1]
        self.shares_prompts = "blocks" in fit
        if self.shares_prompts:
            self._base.set_attn_implementation(BLOCKS)
            fuse_attention(self._base)
        self._base.set_attn_implementation(implementations[self.form])

    def _implementations(self) -> dict[Form, str]:
        """Return the forms that this model may take, the fastest last, and the attention of each."""
        longest = self.config.max_prompt_tokens + self.config.max_new_tokens
        found: dict[Form, str] = {"plain": self._base.config._attn_implementation, "blocks": BLOCKS}
        if self.accelerator.device.type == "cuda" and sees_all(self._base.config, longest):
            found["flex"] = "flex_attention"
        return found

    def _probe_logps(self) -> Tensor:
        """Return log-probs of two prompts with two completions each, laid out in the present form."""
        prompts, answers = ([self._probe_ids(text) for text in texts] for texts in (_PROBE_PROMPTS, _PROBE_ANSWERS))
        return self.logps(BASE, self.pack([TokenSequence(p, a) for p in prompts for a in answers]))

    def _probe_ids(self, text: str) -> tuple[int, ...]:
        ids = tuple(self.tokens.tokenizer(text)["input_ids"])
        if 2 * len(set(ids)) > len(ids):
            return ids
        # English is all one unknown token here, which would look the same in any order
        vocabulary = self._base.get_output_embeddings().weight.shape[0]
        return tuple(7 * ord(character) % vocabulary for character in text[:20] + text[-12:])

    def _close(self, found: Tensor, plain: Tensor) -> bool:
        return bool((found - plain).abs().mean() <= _PROBE_TOLERANCE[self.precision])


def _without_dropout(model: nn.Module) -> None:
    """Take dropout out: with it a PPO ratio is not 1 at the first step."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0  # type: ignore[assignment]


def _weights_digest(model: nn.Module) -> str:
    """Name a model by its shapes and a sample of its weights: any training changes them all."""
    sums = {name: [list(p.shape), p.detach().flatten()[:: max(1, p.numel() // 64)][:64].float().tolist()]
            for name, p in model.named_parameters()}  # fmt: skip
    return digest(sums)


def _settings(model: PreTrainedModel) -> dict[str, Any]:
    """Return what config.json decides, such as rotary angles or a window, but not where it was read and by whom."""
    named = model.config.to_dict()
    return {name: value for name, value in named.items() if name not in ("_name_or_path", "transformers_version")}
