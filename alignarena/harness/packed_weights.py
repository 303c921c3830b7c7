"""Frozen weights laid out once as the CPU's matrix products read them.

oneDNN lays the weights of a product out anew each time, which is a third of it where the rows are few: with 64 rows the
products of SmolLM2 in bf16 take 1.4 to 1.9 times as long as with weights laid out ahead, its head 2 to 2.5 times;
results are equal to the last bit. In fp32 the usual products are not oneDNN's: on a CPU without bf16 they take 1.1 to
1.6 times as long, the head 1.9 to 2.9 times, an eighth of a rollout in all (docs/performance.md). It costs a
copy of the weights, so it begins when a policy is first sampled: a fit that never samples holds no more than before.
What it calls is torch's own, but private; where that is missing or refuses, products are the usual ones.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_ROWS = 128  # that the layout is chosen for; it serves any number
_DTYPES = (torch.bfloat16, torch.float32)


class PackedWeights:
    """Products with the frozen linear layers of a model."""

    def __init__(self) -> None:
        self._able = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        self._packed: dict[int, tuple[Tensor, Tensor]] | None = None  # by id: the weight, kept alive, and its copy

    def begin(self) -> None:
        """Lay out each weight when it is next used."""
        if self._packed is None:
            self._packed = {}

    def product(self, x: Tensor, layer: nn.Linear) -> Tensor:
        """Return a layer's output of x (N, I), without a gradient where the layer is packed."""
        packed = self._of(layer.weight) if _as_stored(x, layer.weight) and not torch.is_grad_enabled() else None
        if packed is None:
            return nn.functional.linear(x, layer.weight, layer.bias)
        y: Tensor = _ops()._linear_pointwise(x, packed, layer.bias, "none", [], "")
        return y

    def _of(self, weight: Tensor) -> Tensor | None:
        if self._packed is None or not self._able:
            return None
        if id(weight) not in self._packed:
            if weight.requires_grad or weight.device.type != "cpu" or weight.dtype not in _DTYPES:
                return None
            try:
                self._packed[id(weight)] = weight, _ops()._reorder_linear_weight(weight.detach(), _ROWS)
            except (AttributeError, RuntimeError, TypeError):
                self._able = False
                return None
        return self._packed[id(weight)][1]


def _as_stored(x: Tensor, weight: Tensor) -> bool:
    """Whether a product is of the weight as it is, not of a cast that autocast would make."""
    return x.dtype == weight.dtype and (x.dtype == torch.bfloat16 or not torch.is_autocast_enabled(x.device.type))


def _ops() -> Any:
    return torch.ops.mkldnn
