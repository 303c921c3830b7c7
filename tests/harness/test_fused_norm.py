"""RMSNorm by other norms' kernels: what transformers computes, and its gradients."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from alignarena.harness.fused_norm import fuse_norms

WIDTH = 24


def outputs(norm: nn.Module, x: torch.Tensor, above: torch.Tensor) -> list[torch.Tensor]:
    x = x.clone().requires_grad_()
    norm.zero_grad()
    y = norm(x)
    y.backward(above.to(y.dtype))
    weight = norm.weight.grad
    return [y, x.grad, *([] if weight is None else [weight])]  # type: ignore[list-item]


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize(("weight", "inputs"), [
    (torch.float32, torch.float32), (torch.bfloat16, torch.bfloat16), (torch.float32, torch.bfloat16),
])  # fmt: skip
def test_it_is_the_models_own(weight: torch.dtype, inputs: torch.dtype, trained: bool) -> None:
    torch.manual_seed(0)
    plain = LlamaRMSNorm(WIDTH, eps=1e-5).to(weight)
    with torch.no_grad():
        plain.weight.normal_(1.0, 0.2)
    plain.requires_grad_(trained)
    fused = nn.Sequential(LlamaRMSNorm(WIDTH, eps=1e-5).to(weight))
    fused[0].load_state_dict(plain.state_dict())
    fused.requires_grad_(trained)
    fuse_norms(fused)
    assert "forward" in vars(fused[0])
    # off 0 in the mean, where a layer norm would differ
    x, above = (torch.randn(1, 5000, WIDTH).add(0.5).to(inputs) for _ in range(2))
    near = {"atol": 1e-5, "rtol": 1e-4} if inputs == torch.float32 else {"atol": 0.06, "rtol": 0.02}
    found, wanted = outputs(fused[0], x, above), outputs(plain, x, above)
    assert len(found) == len(wanted) == 2 + trained
    for one, other in zip(found[:2], wanted[:2], strict=True):
        assert one.dtype == other.dtype
        assert_close(one, other, **near)
    if trained:  # a sum over all rows
        assert_close(found[2], wanted[2], atol=0.5 if inputs != torch.float32 else 1e-2, rtol=0.02)


def test_a_step_of_decoding_takes_the_models_own() -> None:
    fused = nn.Sequential(LlamaRMSNorm(WIDTH, eps=1e-5))
    fuse_norms(fused)
    x = torch.randn(5, 1, WIDTH)
    assert torch.equal(fused(x), LlamaRMSNorm(WIDTH, eps=1e-5)(x))


def test_another_norm_keeps_its_own() -> None:
    model = nn.Sequential(GemmaRMSNorm(WIDTH), nn.LayerNorm(WIDTH))  # 1 + weight, and no RMSNorm
    model[0].variance_epsilon = 1e-6
    fuse_norms(model)
    assert all("forward" not in vars(module) for module in model)
