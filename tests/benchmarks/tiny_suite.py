"""The quickstart suite on a random model whose few words are those that the gold scorer reads."""

from __future__ import annotations

from pathlib import Path

import tiny_model
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import LlamaConfig, PreTrainedTokenizerFast

from alignarena.benchmarks.datasets import DataConfig, load_dataset_splits

SIZES = {"sft": 8, "reward_model": 6, "train": 6, "validation": 2, "evaluation": 8}
METHODS = ("base", "sft", "best_of_n", "dpo", "ppo", "rejection_sampling")
_SENTIMENT = ("great", "awful", "good", "bad", ".", "the")


def save_model(folder: Path) -> Path:
    """Save a random model that often names a topic of the evaluation prompts and ends with a full stop."""
    splits = load_dataset_splits(DataConfig("quickstart", sizes=SIZES))
    topics = sorted({name.split()[0].lower() for row in splits.evaluation for name in row["topic_names"]})
    words = [*tiny_model.SPECIAL, *dict.fromkeys((*topics, *_SENTIMENT))]
    tiny_model.save(folder, config=lambda **k: LlamaConfig(**(k | {"vocab_size": len(words), "initializer_range": 0.1})))
    model = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    model.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=model, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>",
        chat_template=tiny_model.TEMPLATE,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def write_suite(path: Path, model: Path, more: str = "") -> Path:
    """Write a suite file that runs in a second."""
    sizes = ", ".join(f"{name}: {size}" for name, size in SIZES.items())
    path.write_text(
        f"""extends: quickstart
model: {{model_name_or_path: "{model}", precision: fp32, max_prompt_tokens: 48, max_new_tokens: 8, tokens_per_batch: 512}}
data: {{sizes: {{{sizes}}}}}
sft: {{num_train_epochs: 2, learning_rate: 1e-3}}
evaluation: {{n: 4}}
methods:
  best_of_n: {{n: 2}}
  ppo: {{updates: 1, prompts_per_update: 4, n: 2}}
  rejection_sampling: {{rounds: 2, n: 4}}
{more}"""
    )
    return path
