"""Variants of the base model: LoRA as peft computes it, and full fine-tuning."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_model
import torch
import toy_task
from peft.tuners.lora.layer import Linear
from torch.testing import assert_close
from transformers import AutoModelForCausalLM

from alignarena.core.contract import Schedule
from alignarena.core.errors import BadInput
from alignarena.harness.backbone import Backbone
from alignarena.harness.cache import Cache
from alignarena.harness.lab import HarnessLab
from alignarena.harness.packing import pack
from alignarena.harness.tokens import TokenSequence
from alignarena.harness.weights import BASE, FullWeights
from alignarena.methods.parts.experience import Fixed
from alignarena.methods.parts.losses import DPOLoss
from alignarena.methods.parts.rows import pairs

PACK = pack([TokenSequence((5, 6, 7), (9, 10, 11, 1)), TokenSequence((5, 6, 7), (12, 1)), TokenSequence((8,), (9, 1))])


@pytest.fixture(scope="module")
def full(tiny_model_dir: Path) -> Backbone:
    return Backbone(tiny_model.config(tiny_model_dir, use_peft=False))


def test_a_fused_layer_gives_what_peft_gives(tiny_backbone: Backbone) -> None:
    tiny_model.disturb(tiny_backbone, "one", seed=1)
    with tiny_backbone.training("one") as parameters:
        fused = tiny_backbone.logps("one", PACK)
        slopes = torch.autograd.grad(fused.square().sum(), parameters[:-2])
        layers = [m for m in tiny_backbone.weights.activate("one").modules() if type(m) is Linear]
        forwards = [layer.__dict__.pop("forward") for layer in layers]  # uncovers the class's own
        try:
            plain = tiny_backbone.logps("one", PACK)
            expected = torch.autograd.grad(plain.square().sum(), parameters[:-2])
        finally:
            for layer, forward in zip(layers, forwards, strict=True):
                layer.forward = forward
    tiny_backbone.drop("one")
    assert len(layers) == 14
    assert_close(fused, plain, atol=1e-5, rtol=1e-5)
    for one, other in zip(slopes, expected, strict=True):
        assert other.norm() > 0
        assert (one - other).norm() <= 1e-4 * other.norm()


def test_full_fine_tuning_moves_every_weight_of_a_copy_and_none_of_the_base(full: Backbone) -> None:
    before = {key: value.clone() for key, value in full.weights.state(BASE).items()}
    full.add("copy")
    with full.training("copy") as parameters:
        loss = full.logps("copy", PACK).sum()
        loss.backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in parameters)
        torch.optim.SGD(parameters, lr=0.1).step()
    after, base = full.weights.state("copy"), full.weights.state(BASE)
    assert all(not torch.equal(after[key], before[key]) for key in before)
    assert all(torch.equal(base[key], before[key]) for key in before)
    full.drop("copy")


def test_gradients_of_full_fine_tuning_are_those_of_transformers(full: Backbone, tiny_model_dir: Path) -> None:
    full.add("copy")
    plain = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    ids = torch.tensor([[5, 6, 7, 9, 10, 11, 1]])
    expected = plain(input_ids=ids).logits[0, 2:-1].log_softmax(-1).gather(1, ids[0, 3:, None]).sum()
    expected.backward()
    with full.training("copy"):
        found = full.logps("copy", pack([TokenSequence((5, 6, 7), (9, 10, 11, 1))])).sum()
        found.backward()
        gradients = {key: p.grad for key, p in full.weights.activate("copy").named_parameters()}
    assert found.item() == pytest.approx(expected.item(), abs=1e-4)
    for key, parameter in plain.named_parameters():
        assert (gradients[key] - parameter.grad).norm() <= 1e-3 * parameter.grad.norm(), key
    full.drop("copy")


def test_a_stored_model_is_one_transformers_loads(full: Backbone, tmp_path: Path) -> None:
    full.add("copy")
    with torch.no_grad():
        for parameter in full.weights.parameters_of("copy"):
            parameter.add_(0.01)
        full.save("copy", tmp_path)
        full.load("again", tmp_path)
        assert_close(full.logps("again", PACK), full.logps("copy", PACK), atol=0, rtol=0)
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
        ids = torch.tensor([[5, 6, 7, 9, 10, 11, 1]])
        expected = loaded(input_ids=ids).logits[0, 2:-1].log_softmax(-1).gather(1, ids[0, 3:, None])[:, 0]
        assert_close(full.logps("copy", PACK)[:4], expected, atol=1e-5, rtol=1e-5)
    full.drop("again")
    full.drop("copy")


@pytest.mark.parametrize("use_peft", [True, False])
def test_recomputed_activations_give_the_same_fit(tiny_model_dir: Path, tmp_path: Path, use_peft: bool) -> None:
    states = []
    for checkpointing in (False, True):
        asked = tiny_model.config(tiny_model_dir, use_peft=use_peft, gradient_checkpointing=checkpointing)
        lab = HarnessLab(Backbone(asked), Cache(tmp_path), seed=0)
        schedule = Schedule(learning_rate=1e-3, batch_size=4, adam_epsilon=1e-3)
        fitted = lab.fit(toy_task.base(lab), Fixed(pairs(toy_task.preferences())), DPOLoss(), schedule)
        states.append(lab.backbone.weights.state(fitted.load(lab.backbone)))  # type: ignore[attr-defined]
    assert states[0].keys() == states[1].keys()
    for key in states[0]:
        assert_close(states[0][key], states[1][key], atol=1e-5, rtol=1e-4)


def test_two_adapters_never_recompute_each_other(tiny_model_dir: Path) -> None:
    backbone = Backbone(tiny_model.config(tiny_model_dir, gradient_checkpointing=True))
    backbone.add("policy")
    backbone.add("value")
    with pytest.raises(BadInput, match="gradient_checkpointing"), backbone.training("policy", "value"):
        pass
    assert not backbone.trainable


@pytest.mark.parametrize("use_peft", [True, False])
def test_dpo_starts_at_log_2_in_bf16(tiny_model_dir: Path, tmp_path: Path, use_peft: bool) -> None:
    config = replace(tiny_model.config(tiny_model_dir, use_peft=use_peft), precision="bf16")
    lab = HarnessLab(Backbone(config), Cache(tmp_path), seed=0)
    rows = Fixed(pairs(toy_task.preferences()))
    fitted = lab.fit(toy_task.base(lab), rows, DPOLoss(), Schedule(learning_rate=1e-3, batch_size=4))
    first = json.loads((fitted.folder / "metrics.jsonl").read_text().splitlines()[0])  # type: ignore[attr-defined]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-3)


def test_few_models_stay_in_memory(full: Backbone, tmp_path: Path) -> None:
    full.add("copy")
    full.save("copy", tmp_path)
    for i in range(5):
        full.load(f"other {i}", tmp_path)
    assert isinstance(full.weights, FullWeights)
    assert {name for name in full.weights._models if name.startswith("other")} == {"other 3", "other 4"}
    for name in ("copy", "other 3", "other 4"):
        full.drop(name)
