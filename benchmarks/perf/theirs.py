"""TRL's trainers on pre-tokenised rows, set as well as this machine allows.

Saving and reporting are off and rows come in the given order; attention, micro-batch and gradient checkpointing (on by
TRL's default) are the fastest of a short trial, see :mod:`alignarena.benchmarks.perf.trial`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PrinterCallback,
    TrainerCallback,
)
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer, RLOOConfig, RLOOTrainer, SFTConfig, SFTTrainer
from trl.trainer.reward_trainer import suppress_seqcls_warning

from alignarena.benchmarks.perf.terms import SEED, Settings, Terms
from alignarena.benchmarks.perf.work import Comparison, pairs

KL_COEF, CLIPRANGE = 0.05, 0.2
State = dict[str, torch.Tensor]


class PreTokenisedDPOTrainer(DPOTrainer):  # type: ignore[misc]
    """Takes ``prompt_ids, chosen_ids, rejected_ids`` as they are; the other trainers do so by themselves."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset


def dpo(terms: Terms, settings: Settings, data: Sequence[Comparison], folder: Path, precomputed: bool = False) -> Any:
    """Return a DPO trainer; its reference model is computed live, or before the first step."""
    names = ("prompt_ids", "chosen_ids", "rejected_ids")
    rows = [dict(zip(names, map(list, (one.prompt, *one.completions)), strict=True)) for one in data]
    options = {"beta": 0.1, "precompute_ref_log_probs": precomputed}
    live = not precomputed and not terms.use_peft
    reference = load(AutoModelForCausalLM, terms, settings, compute_type(terms)) if live else None
    return PreTokenisedDPOTrainer(
        _policy(terms, settings),
        reference,
        DPOConfig(**_arguments(terms, settings, folder, terms.batch_size), **_ordered(), **options),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer(terms),
        peft_config=lora(terms, "CAUSAL_LM"),
    )


def sft(terms: Terms, settings: Settings, data: Sequence[Comparison], folder: Path) -> Any:
    """Return an SFT trainer whose loss is on the completion only."""
    rows = [
        {
            "input_ids": [*one.prompt, *one.completions[0]],
            "labels": [-100] * len(one.prompt) + list(one.completions[0]),
        }
        for one in data
    ]
    options = {"padding_free": settings.padding_free}
    return SFTTrainer(
        _policy(terms, settings),
        SFTConfig(**_arguments(terms, settings, folder, terms.batch_size), **_ordered(), **options),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer(terms),
        peft_config=lora(terms, "CAUSAL_LM"),
    )


def reward_model(terms: Terms, settings: Settings, data: Sequence[Comparison], folder: Path) -> Any:
    """Return a reward trainer on all pairs of each ranking."""
    spread = pairs(data)
    rows = [
        {"chosen_ids": [*one.prompt, *one.completions[0]], "rejected_ids": [*one.prompt, *one.completions[1]]}
        for one in spread
    ]
    model = scorer(terms, settings, _policy_type(terms))
    model.score.float()  # trained in fp32 on a base of any precision
    return RewardTrainer(
        model,
        RewardConfig(**_arguments(terms, settings, folder, terms.batch_size * len(spread) // len(data)), **_ordered()),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer(terms),
        peft_config=lora(terms, "SEQ_CLS"),
    )


def online(terms: Terms, settings: Settings, data: Sequence[Comparison], folder: Path, n: int, score: Any) -> Any:
    """Return an RLOO trainer that samples n completions a prompt, none of which may end early.

    Args:
        terms: As everywhere.
        settings: As everywhere.
        data: Its prompts.
        folder: Where it may write.
        n: Completions a prompt.
        score: From ``prompts, completions, completion_ids`` to one score a completion.
    """
    made = tokenizer(terms, padding_side="left")
    length = terms.max_new_tokens
    return RLOOTrainer(
        _policy(terms, settings),
        [score],
        RLOOConfig(
            **_arguments(terms, settings, folder, terms.batch_size * n),
            num_generations=n,
            max_completion_length=length,
            generation_kwargs={"min_new_tokens": length},
            beta=KL_COEF,
            epsilon=CLIPRANGE,
            shuffle_dataset=False,
        ),
        train_dataset=Dataset.from_list([{"prompt": made.decode(one.prompt)} for one in data]),
        processing_class=made,
        peft_config=lora(terms, "CAUSAL_LM"),
    )


def scorer(terms: Terms, settings: Settings, dtype: torch.dtype) -> Any:
    """Return a sequence classifier of one label, its head random."""
    with suppress_seqcls_warning():
        return load(AutoModelForSequenceClassification, terms, settings, dtype, num_labels=1)


def set_head(model: Any, head: torch.Tensor) -> None:
    """Give a sequence classifier, or an adapted one, a head (1, D)."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "score" in name.split("."):
                parameter.copy_(head)


def set_adapter(trainer: Any, state: State) -> None:
    """Start from a given adapter instead of a random one; a head beside it stays as it is.

    Raises:
        KeyError: The trainer adapts other layers.
    """
    own = get_peft_model_state_dict(trainer.model, adapter_name="default")
    if other := state.keys() - own.keys():
        raise KeyError(f"no layers {sorted(other)[:3]} in TRL's model")
    set_peft_model_state_dict(trainer.model, own | state, adapter_name="default")


def tokenizer(terms: Terms, **options: Any) -> Any:
    """Return the tokenizer with a pad token that is not its EOS: a reward model reads the last token but pads."""
    made = AutoTokenizer.from_pretrained(terms.model, **options)
    if made.pad_token_id in (None, made.eos_token_id):
        in_use = set(made.convert_ids_to_tokens(made.apply_chat_template(
            [{"role": "system", "content": ""}, {"role": "user", "content": "x"}], return_dict=False
        )))  # fmt: skip
        made.pad_token = next(token for token in made.all_special_tokens if token not in {made.eos_token, *in_use})
    return made


def quiet(trainer: Any, *callbacks: TrainerCallback) -> Any:
    """Print nothing, and call back."""
    trainer.remove_callback(PrinterCallback)
    for callback in callbacks:
        trainer.add_callback(callback)
    return trainer


def _arguments(terms: Terms, settings: Settings, folder: Path, batch: int) -> dict[str, Any]:
    schedule, parts = terms.schedule, settings.gradient_accumulation_steps
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": batch // parts,
        "gradient_accumulation_steps": parts,
        "max_steps": terms.steps,
        "learning_rate": schedule.learning_rate,
        "lr_scheduler_type": schedule.lr_scheduler_type,
        "weight_decay": schedule.weight_decay,
        "adam_epsilon": schedule.adam_epsilon,
        "max_grad_norm": schedule.max_grad_norm,
        "optim": "adamw_torch_fused",
        "bf16": terms.precision == "bf16",
        "gradient_checkpointing": settings.gradient_checkpointing,
        "use_cpu": not torch.cuda.is_available(),
        "logging_steps": 1,
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
        "seed": SEED,
    }


def _ordered() -> dict[str, Any]:
    return {"train_sampling_strategy": "sequential", "max_length": None}


def _policy(terms: Terms, settings: Settings) -> Any:
    return load(AutoModelForCausalLM, terms, settings, _policy_type(terms))


def _policy_type(terms: Terms) -> torch.dtype:
    """Return fp32 for weights that are trained, the precision of the forward pass for a base under LoRA."""
    return compute_type(terms) if terms.use_peft else torch.float32


def compute_type(terms: Terms) -> torch.dtype:
    """Return the type of weights that are not trained."""
    return torch.bfloat16 if terms.precision == "bf16" else torch.float32


def load(kind: Any, terms: Terms, settings: Settings, dtype: torch.dtype, **options: Any) -> Any:
    """Load the model in a number type, with the attention that is set."""
    return kind.from_pretrained(terms.model, dtype=dtype, attn_implementation=settings.attn_implementation, **options)


def lora(terms: Terms, task: str) -> LoraConfig | None:
    """Return our adapter's configuration for a task type of peft, or ``None`` in full fine-tuning."""
    if not terms.use_peft:
        return None
    config = terms.config
    return LoraConfig(r=config.lora_r, lora_alpha=config.lora_alpha, target_modules="all-linear", task_type=task)
