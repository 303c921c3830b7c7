"""Attention layers token by token: what the model's own forward computes, and its gradients."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from alignarena.harness.attention import BLOCKS, PackedLayout
from alignarena.harness.blocks import with_prefix
from alignarena.harness.fused_attention import fuse_attention

SHAPE = {"hidden_size": 24, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 6,
         "num_key_value_heads": 2, "head_dim": 4, "vocab_size": 30}  # fmt: skip


def layers(config: Callable[..., Any], model: Callable[..., Any], **changes: Any) -> tuple[nn.Module, nn.Module]:
    """Return a model's first attention layer as it is and fused, with the same weights."""
    torch.manual_seed(0)
    plain, fused = (model(config(**SHAPE, **changes)).requires_grad_(False) for _ in range(2))
    fused.load_state_dict(plain.state_dict())
    for one in (plain, fused):
        one.set_attn_implementation(BLOCKS)
    fuse_attention(fused)
    return plain.model.layers[0].self_attn, fused.model.layers[0].self_attn


def is_fused(layer: nn.Module) -> bool:
    return "forward" in vars(layer)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("config", "model", "changes"), [
    (LlamaConfig, LlamaForCausalLM, {}),
    (LlamaConfig, LlamaForCausalLM, {"attention_bias": True}),
    (MistralConfig, MistralForCausalLM, {"sliding_window": 3}),
    (PhiConfig, PhiForCausalLM, {}),  # turns a part of each head; another name for the last projection
])  # fmt: skip
def test_it_is_the_models_own(
    config: Callable[..., Any], model: Callable[..., Any], changes: dict[str, Any], dtype: torch.dtype
) -> None:
    plain, fused = layers(config, model, **changes)
    assert is_fused(fused) and not is_fused(plain)
    for layer in (plain, fused):
        layer.to(dtype).q_proj.weight.requires_grad_()
        layer.k_proj.weight.requires_grad_()
    layout = PackedLayout(with_prefix(2, [(5, (3, 4)), (4, (2,))]))
    turned = getattr(plain, "rotary_ndims", plain.head_dim)
    angles = torch.rand(1, layout.place.numel(), turned // 2).mul(6).repeat(1, 1, 2)
    hidden = torch.randn(1, layout.place.numel(), 24, dtype=dtype)
    turn = angles.cos().to(dtype), angles.sin().to(dtype)
    found = []
    for layer in (plain, fused):
        x = hidden.clone().requires_grad_()
        y = layer(x, position_embeddings=turn, attention_mask=None, layout=layout)[0]
        y.backward(torch.linspace(-1, 1, y.numel(), dtype=dtype).view(y.shape))
        found.append((y, x.grad, layer.q_proj.weight.grad, layer.k_proj.weight.grad))
    near = {"atol": 1e-6, "rtol": 1e-4} if dtype == torch.float32 else {"atol": 0.03, "rtol": 0.05}
    for own, other in zip(*found, strict=True):
        assert own.dtype == other.dtype
        assert_close(other, own, **near)


def test_trained_weights_in_fp32_compute_in_bf16_as_the_models_own() -> None:
    layout = PackedLayout(with_prefix(0, [(5, (3, 4))]))
    angles = torch.rand(1, layout.place.numel(), 2).mul(6).repeat(1, 1, 2)
    hidden, found = torch.randn(1, layout.place.numel(), 24), []
    for layer in layers(LlamaConfig, LlamaForCausalLM):
        layer.requires_grad_(True)
        x = hidden.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            y = layer(x, position_embeddings=(angles.cos(), angles.sin()), attention_mask=None, layout=layout)[0]
        y.float().square().sum().backward()
        found.append((y, x.grad, layer.q_proj.weight.grad, layer.v_proj.weight.grad))
    for own, other in zip(*found, strict=True):
        assert own.dtype == other.dtype
        assert_close(other, own, atol=0.03 * float(own.detach().abs().max()), rtol=0.05)


def test_without_a_layout_it_takes_the_models_own() -> None:
    plain, fused = layers(LlamaConfig, LlamaForCausalLM)
    hidden, turn = torch.randn(1, 5, 24), (torch.ones(1, 5, 4), torch.zeros(1, 5, 4))
    own, found = (layer(hidden, position_embeddings=turn, attention_mask=None)[0] for layer in (plain, fused))
    assert torch.equal(own, found)


def test_a_layer_that_computes_something_else_keeps_its_own() -> None:
    _, normed = layers(Qwen3Config, Qwen3ForCausalLM)  # norms of queries and keys
    assert not is_fused(normed)
    model = LlamaForCausalLM(LlamaConfig(**SHAPE))  # attends by SDPA: there is nothing to learn
    fuse_attention(model)
    assert not any(is_fused(module) for module in model.modules())
