"""FlexAttention's block mask: which models may take it."""

import pytest
from transformers import (
    Gemma2Config,
    Gemma3Config,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen2Config,
)

from alignarena.harness.flex import sees_all


@pytest.mark.parametrize(
    ("config", "sees"),
    [
        (LlamaConfig(), True),  # has no window
        (MistralConfig(sliding_window=None), True),
        (MistralConfig(sliding_window=300), False),
        (MistralConfig(sliding_window=304), True),  # never reached
        (Gemma2Config(sliding_window=128), False),  # every second layer
        (Qwen2Config(sliding_window=128), True),  # switched off by default
        (Qwen2Config(sliding_window=128, use_sliding_window=True, max_window_layers=1), False),
        (Gemma3Config(text_config=Gemma3TextConfig(sliding_window=128)), False),  # text and pictures
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_window_shorter_than_a_sequence_is_found(config: PretrainedConfig, sees: bool) -> None:
    assert sees_all(config, 304) is sees
