import pytest
import torch

from alignarena.benchmarks.perf.flops import ModelShape, dpo_step, product_rate, utilisation
from alignarena.benchmarks.perf.work import Comparison

# 3 tokens of prompt, completions of 2 and 1: 6 tokens in all
PAIR = Comparison((1, 2, 3), ((4, 5), (6,)))
SHAPE = ModelShape(matrices=100, head=50, layers=2, attention_width=8)
# the prompt's tokens see 1 + 2 + 3 tokens, the first completion's 4 + 5, the second's 4
SEEN = 6 + 9 + 4


def test_operations_by_hand():
    products = 2 * 100 * 6 + 2 * 50 * 3
    attention = 4 * 2 * 8 * SEEN
    assert SHAPE.products([PAIR]) == products
    assert SHAPE.attention([PAIR]) == attention
    assert dpo_step(SHAPE, [PAIR]) == 4 * (products + attention)
    assert dpo_step(SHAPE, [PAIR], adapter=10) == 3 * products + 4 * attention + 6 * 10 * 6


def test_shape_of_a_model(tiny_backbone):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_backbone.config.model_name_or_path)
    shape = ModelShape.of(model)
    attention, mlp = 2 * 32 * 32 + 2 * 32 * 16, 3 * 32 * 64  # 4 heads, 2 of keys and values
    assert shape == ModelShape(matrices=2 * (attention + mlp), head=300 * 32, layers=2, attention_width=32)


def test_rates():
    assert product_rate(32, torch.float32, repeats=2) > 0
    assert utilisation([10.0, 30.0, 20.0], [1.0, 1.0, 1.0], 100.0) == pytest.approx((0.2, 0.1, 0.3))
