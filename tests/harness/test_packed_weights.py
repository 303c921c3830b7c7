"""Products with weights laid out ahead: the same numbers, and the usual product wherever they do not apply."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from alignarena.harness import packed_weights
from alignarena.harness.packed_weights import PackedWeights


def layer(dtype: torch.dtype = torch.bfloat16, bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(96, 160, bias=bias).to(dtype).requires_grad_(False)


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Count the weights that are laid out."""
    made: list[int] = []
    real = torch.ops.mkldnn

    class Ops:
        _linear_pointwise = staticmethod(real._linear_pointwise)

        @staticmethod
        def _reorder_linear_weight(weight: torch.Tensor, rows: int) -> torch.Tensor:
            made.append(len(weight))
            return real._reorder_linear_weight(weight, rows)

    with monkeypatch.context() as patch:
        patch.setattr(packed_weights, "_ops", Ops)
        yield made


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 7, 300])
def test_a_packed_product_is_the_product(
    rows: int, bias: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, x = layer(dtype, bias), torch.randn(rows, 96).to(dtype)
    packed = PackedWeights()
    with counted(monkeypatch) as made, torch.no_grad():
        packed.begin()
        found = [packed.product(x, one) for _ in range(2)]
        assert made == [160]  # once
    for y in found:
        near = {"atol": 0.02, "rtol": 0.01} if dtype == torch.bfloat16 else {"atol": 1e-5, "rtol": 1e-5}
        torch.testing.assert_close(y, one(x), **near)


def test_nothing_is_laid_out_before_it_begins_nor_what_may_change(monkeypatch: pytest.MonkeyPatch) -> None:
    packed, x = PackedWeights(), torch.randn(3, 96).bfloat16()
    trained, exact = layer().requires_grad_(True), layer(torch.float32)
    with counted(monkeypatch) as made:
        with torch.no_grad():
            assert torch.equal(packed.product(x, layer()), layer()(x))
            packed.begin()
            assert torch.equal(packed.product(x, trained), trained(x))
            with torch.autocast("cpu", torch.bfloat16):  # which would cast the weight
                assert torch.equal(packed.product(x.float(), exact), exact(x.float()))
        asked = x.clone().requires_grad_()
        packed.product(asked, layer()).sum().backward()
        assert asked.grad is not None
        assert made == []


def test_where_torch_refuses_the_product_is_the_usual_one(monkeypatch: pytest.MonkeyPatch) -> None:
    packed, x = PackedWeights(), torch.randn(3, 96).bfloat16()
    packed.begin()
    monkeypatch.setattr(packed_weights, "_ops", lambda: object())
    with torch.no_grad():
        assert torch.equal(packed.product(x, layer()), layer()(x))
