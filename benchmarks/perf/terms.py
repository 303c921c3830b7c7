"""What both sides of a comparison are told: model, precision, optimiser, batch; and how TRL is set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from alignarena.core.contract import Schedule
from alignarena.core.model import ModelConfig
from alignarena.harness.device import choose_precision

Precision = Literal["bf16", "fp32"]
SEED = 0


@dataclass(frozen=True)
class Terms:
    """One comparison, for both sides."""

    model: str  # a local folder: the same stored weights for both
    use_peft: bool
    precision: Precision
    steps: int
    batch_size: int  # prompts an optimiser step
    learning_rate: float
    max_prompt_tokens: int = 512
    max_new_tokens: int = 512
    tokens_per_batch: int = 1536  # what the quickstart trains with

    @property
    def training(self) -> str:
        """How it is trained, in words."""
        return "LoRA r 16" if self.use_peft else "full fine-tuning"

    @property
    def schedule(self) -> Schedule:
        """AdamW at a constant rate, no weight decay, gradients clipped to a norm of 1."""
        return Schedule(learning_rate=self.learning_rate, batch_size=self.batch_size, lr_scheduler_type="constant")

    @property
    def config(self) -> ModelConfig:
        """The model as our side loads it."""
        return ModelConfig(
            model_name_or_path=self.model,
            use_peft=self.use_peft,
            precision=self.precision,
            max_prompt_tokens=self.max_prompt_tokens,
            max_new_tokens=self.max_new_tokens,
            tokens_per_batch=self.tokens_per_batch,
        )


@dataclass(frozen=True)
class Settings:
    """What TRL leaves to its user and changes its speed, never its result."""

    attn_implementation: str = "sdpa"
    gradient_accumulation_steps: int = 1
    gradient_checkpointing: bool = False  # TRL's default is on
    padding_free: bool = False  # SFT only

    def label(self) -> str:
        """Return them in words."""
        count = self.gradient_accumulation_steps
        parts = [self.attn_implementation, "one micro-batch" if count == 1 else f"{count} micro-batches"]
        parts += ["gradient checkpointing (TRL's default)"] * self.gradient_checkpointing
        return ", ".join(parts + ["padding-free"] * self.padding_free)


def best_precision() -> Precision:
    """Return what this machine multiplies fastest: the precision of every comparison."""
    precision, _ = choose_precision("auto")
    return "bf16" if precision == "bf16" else "fp32"
