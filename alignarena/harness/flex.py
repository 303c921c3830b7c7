"""The packed layout as FlexAttention's block mask, for the kernels that CUDA has for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask
from transformers import PretrainedConfig

from alignarena.harness.blocks import PackedRow

MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def mask_mod(rows: Sequence[PackedRow], device: torch.device | str) -> MaskMod:
    """Return the rule (batch, head, query, key) -> seen: the same row, its prompt or the same completion, not later."""
    row = [r for r, packed in enumerate(rows) for _ in range(packed.prompt + sum(packed.completions))]
    segment = [s for packed in rows for s, length in enumerate((packed.prompt, *packed.completions))
               for _ in range(length)]  # fmt: skip
    of_row, of_segment = torch.tensor(row, device=device), torch.tensor(segment, device=device)

    def seen(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        same = (of_segment[key] == 0) | (of_segment[key] == of_segment[query])
        return (of_row[query] == of_row[key]) & same & (key <= query)

    return seen


def block_mask(rows: Sequence[PackedRow], device: torch.device | str) -> Any:
    """Return the block mask over the N tokens of the rows."""
    size = sum(row.prompt + sum(row.completions) for row in rows)
    return create_block_mask(mask_mod(rows, device), 1, None, size, size, device=str(device))


def sees_all(config: PretrainedConfig, length: int) -> bool:
    """Tell whether no layer of a model has a window shorter than a sequence of so many tokens.

    transformers hands a block mask on as it is, so that layers with a window would see beyond it. The probe at load,
    some dozens of tokens long, cannot find that out.
    """
    window = getattr(config.get_text_config(), "sliding_window", None)
    return window is None or window >= length
