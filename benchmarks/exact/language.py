"""The language of an exact world and its base model: a tokenizer of a few words, a transformer pretrained on them.

The output layer can only produce completion tokens and the end: its bias rules everything else out, so that a policy's
distribution over the enumerated completions sums to 1.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PhiConfig, PhiForCausalLM, PreTrainedTokenizerFast

from alignarena.benchmarks.exact.text import INSTRUCTIONS, drawn_rows
from alignarena.core.contract import Schedule
from alignarena.core.digest import digest
from alignarena.core.model import ModelConfig
from alignarena.evaluators.exact.world import World, prompt_text
from alignarena.harness.backbone import Backbone
from alignarena.harness.cache import Cache, cache_folder, locked
from alignarena.harness.lab import HarnessLab
from alignarena.harness.policy import AdapterPolicy
from alignarena.harness.progress import quieten
from alignarena.methods.parts.experience import Fixed
from alignarena.methods.parts.losses import SFTLoss

PAD, END, UNKNOWN, ANSWER = "<pad>", "<end>", "<unk>", "<answer>"
_TEMPLATE = (
    "{% for m in messages %}{{ m['content'] }} {% endfor %}{% if add_generation_prompt %}" + ANSWER + "{% endif %}"
)
_NEVER = -1e4  # a logit: its probability is 0 in every precision
_PRETRAINING = Schedule(learning_rate=2e-3, batch_size=256, lr_scheduler_type="cosine", warmup_ratio=0.05)
_PRETRAINING_ROWS = 1024  # of each combination
_REVISION = 2  # raise it when a change makes another base of the same world


def tokenizer(world: World) -> PreTrainedTokenizerFast:
    """Return the tokenizer of a world, whose tokens are words: ``t0 t1`` in completions, ``a0 b2`` in prompts."""
    attributes = [word for i in range(world.values) for word in prompt_text((i,) * world.attributes).split()]
    words = [*completion_words(world), END, PAD, UNKNOWN, ANSWER, *INSTRUCTIONS, *attributes]
    model = Tokenizer(WordLevel({word: place for place, word in enumerate(words)}, unk_token=UNKNOWN))
    model.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=model, pad_token=PAD, eos_token=END, unk_token=UNKNOWN, chat_template=_TEMPLATE
    )


def completion_words(world: World) -> list[str]:
    """Return the words of completions; their ids are 0 to V - 1, and the end's is V."""
    return [f"t{number}" for number in range(world.tokens)]


def shape(world: World) -> PhiConfig:
    """Return the shape of a world's base model."""
    return PhiConfig(
        vocab_size=len(tokenizer(world)), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=64, tie_word_embeddings=False,
        bos_token_id=None, eos_token_id=world.tokens, pad_token_id=world.tokens + 1, resid_pdrop=0.0,
        hidden_act="gelu_pytorch_tanh",  # one operation, where the default is ten
    )  # fmt: skip


def base_model(world: World, config: ModelConfig) -> str:
    """Return the folder of a world's base model; pretrains it at its first use, through the same trainer as methods."""
    name = digest("exact base", _REVISION, world.seed, world.attributes, world.values, world.tokens, world.length)
    folder = cache_folder() / "models" / f"exact-{name[:16]}"
    with locked(folder):
        if not (folder / "config.json").is_file():
            _pretrain(world, config, folder)
    return str(folder)


def _pretrain(world: World, config: ModelConfig, folder: Path) -> None:
    blank = folder.with_name(f".{folder.name}.blank")
    _untrained(world, blank)
    try:
        backbone = Backbone(
            ModelConfig(
                str(blank), None, max_prompt_tokens=config.max_prompt_tokens, max_new_tokens=world.length,
                use_peft=False, precision="fp32", tokens_per_batch=config.tokens_per_batch,
            )
        )  # fmt: skip
        rows = drawn_rows(world, world.combinations, _PRETRAINING_ROWS, "pretraining", world.pretraining_logits)
        lab = HarnessLab(backbone, Cache(), world.seed)
        fitted: Any = lab.fit(AdapterPolicy(backbone.digest), Fixed(Dataset.from_list(rows)), SFTLoss(), _PRETRAINING)
        for file in ("model.safetensors", "config.json"):  # the configuration last: its presence says all is there
            shutil.copyfile(fitted.folder / file, blank / file)
        shutil.rmtree(folder, ignore_errors=True)
        blank.rename(folder)
    finally:
        shutil.rmtree(blank, ignore_errors=True)


def _untrained(world: World, folder: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(world.seed)
        model = PhiForCausalLM(shape(world))
    with torch.no_grad():
        model.lm_head.bias[world.tokens + 1 :] = _NEVER
    quieten()
    model.save_pretrained(folder)
    tokenizer(world).save_pretrained(folder)
