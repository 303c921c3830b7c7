"""The quickstart suite on a tiny model that writes sentences such as "great coffee .", which gold can rate."""

from __future__ import annotations

import math
from pathlib import Path

import tiny_model
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from alignarena.benchmarks.datasets import DataConfig, load_dataset_splits

SIZES = {"sft": 8, "reward_model": 6, "train": 6, "validation": 2, "evaluation": 4}
METHODS = ("base", "sft", "best_of_n", "dpo", "ppo", "rejection_sampling")
WIDTH = 64
QUALITIES = ("great", "good", "the", "bad", "awful")


def save_model(folder: Path) -> Path:
    """Save a model of word pairs: a quality, a topic of some evaluation prompt, mostly a full stop, the end."""
    splits = load_dataset_splits(DataConfig("quickstart", sizes=SIZES))
    topics = sorted({name.split()[0].lower() for row in splits.evaluation for name in row["topic_names"]})
    words = [*tiny_model.SPECIAL, *QUALITIES, *topics, "."]
    follows = {
        "<assistant>": dict.fromkeys(QUALITIES, 1.0),
        **{quality: dict.fromkeys(topics, 2.0) for quality in QUALITIES},
        **{topic: {".": 8.0, "<eos>": 1.0} for topic in topics},
        ".": {"<eos>": 4.0},
    }
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=len(words), hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=False, pad_token_id=0,
        bos_token_id=None, eos_token_id=1,
    )  # fmt: skip
    model = LlamaForCausalLM(shape)
    with torch.no_grad():  # each word its own direction of the residual stream, and no block adds to it
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(len(words), WIDTH))
        for j, word in enumerate(words):
            for i, before in enumerate(words):
                odds = math.log(follows.get(before, {}).get(word, 0.02))
                model.lm_head.weight[j, i] = odds / math.sqrt(WIDTH)  # what the final norm multiplies by
            model.lm_head.weight[j, len(words) :] = 0.0
    model.save_pretrained(folder)
    splitter = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    splitter.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=splitter, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>",
        additional_special_tokens=list(tiny_model.SPECIAL[3:]), chat_template=tiny_model.TEMPLATE,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def write_suite(path: Path, model: Path, more: str = "") -> Path:
    """Write a suite file that runs in seconds."""
    sizes = ", ".join(f"{name}: {size}" for name, size in SIZES.items())
    path.write_text(
        f"""extends: quickstart
model:
  {{model_name_or_path: "{model}", precision: fp32, max_prompt_tokens: 48, max_new_tokens: 11, tokens_per_batch: 512}}
data: {{sizes: {{{sizes}}}}}
sft: {{num_train_epochs: 1, learning_rate: 1e-5}}
reward_model: {{schedule: {{num_train_epochs: 1, batch_size: 16}}}}
evaluation: {{n: 8}}
compare: [{", ".join(METHODS)}]
methods:
  best_of_n: {{n: 2}}
  dpo: {{schedule: {{learning_rate: 0.003, batch_size: 2}}}}
  ppo: {{updates: 2, prompts_per_update: 4, n: 2, schedule: {{learning_rate: 0.003, batch_size: 2}}}}
  rejection_sampling: {{rounds: 2, n: 4, schedule: {{learning_rate: 0.003}}}}
{more}""",
        encoding="utf-8",
    )
    return path
