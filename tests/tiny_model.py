"""A random Llama of 2 layers over a vocabulary of 300 words, saved as users save theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from alignarena.core.model import ModelConfig

SPECIAL = ("<pad>", "<eos>", "<unk>", "<system>", "<user>", "<assistant>")
WORDS = tuple(f"w{i}" for i in range(300 - len(SPECIAL)))
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer whose tokens are the words of a text."""
    model = Tokenizer(WordLevel({word: i for i, word in enumerate(SPECIAL + WORDS)}, unk_token="<unk>"))
    model.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=model, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", chat_template=TEMPLATE
    )


def save(folder: Path, seed: int = 0, config: type = LlamaConfig, model: type = LlamaForCausalLM, **more: Any) -> Path:
    """Save a random model, by default a Llama, and its tokenizer."""
    torch.manual_seed(seed)
    made = model(
        config(
            vocab_size=300,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
            initializer_range=0.3,  # peaked enough that models and tokens differ
            tie_word_embeddings=False,
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=1,
            **more,
        )
    )
    made.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def config(folder: Path, **more: Any) -> ModelConfig:
    """Return the limits that the tests use."""
    limits: dict[str, Any] = {"max_prompt_tokens": 32, "max_new_tokens": 12, "tokens_per_batch": 256}
    return ModelConfig(model_name_or_path=str(folder), precision="fp32", **{**limits, **more})


def plain_logps(backbone: Any, adapter: str, sequence: Any) -> torch.Tensor:
    """Return log-probs (T,) by one forward of one whole sequence, all logits kept."""
    ids = torch.tensor([[*sequence.prompt, *sequence.completion]])
    logits = backbone.weights.activate(adapter)(input_ids=ids, use_cache=False).logits[0, len(sequence.prompt) - 1 : -1]
    return torch.log_softmax(logits.float(), -1).gather(1, ids[0, len(sequence.prompt) :, None])[:, 0]


def plain_head(backbone: Any, adapter: str, sequence: Any) -> torch.Tensor:
    """Return the scalar head before each completion token and after the last (T + 1,), by one forward."""
    ids = torch.tensor([[*sequence.prompt, *sequence.completion]])
    hidden = backbone.weights.activate(adapter).base_model(input_ids=ids, use_cache=False).last_hidden_state[0]
    return backbone.heads[adapter](hidden[len(sequence.prompt) - 1 :])[:, 0]


def disturb(backbone: Any, name: str, seed: int = 0, scale: float = 0.05) -> None:
    """Add an adapter that changes the model, and a scalar head."""
    backbone.add(name, seed=seed)
    noise = torch.Generator().manual_seed(seed)
    state = backbone.weights.state(name)
    noisy = {key: scale * torch.randn(value.shape, generator=noise) for key, value in state.items()}
    backbone.weights.set_state(name, noisy)
    backbone.add_head(name, seed)
