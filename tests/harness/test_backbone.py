"""One frozen model, many adapters: the fast paths give what a plain forward of each sequence gives."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_model
import torch
from torch.testing import assert_close
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaModel

from alignarena.core.errors import BadInput
from alignarena.harness.backbone import Backbone
from alignarena.harness.packing import pack
from alignarena.harness.tokens import TokenSequence
from alignarena.harness.weights import BASE

EXACT = {"atol": 1e-5, "rtol": 1e-5}


def completion(seed: int, length: int) -> tuple[int, ...]:
    return tuple(torch.randint(0, 300, (length,), generator=torch.Generator().manual_seed(seed)).tolist())


PROMPTS = [completion(100 + i, 2 + 3 * i) for i in range(3)]
LAYOUTS = {
    "a single completion": [TokenSequence(PROMPTS[0], completion(0, 5))],
    "ragged pairs": [TokenSequence(PROMPTS[i % 3], completion(i, 1 + 4 * (i % 3) + i)) for i in range(6)],
    "nine of one prompt": [TokenSequence(PROMPTS[1], completion(i, 1 + i)) for i in range(9)],
}


@pytest.fixture
def backbone(tiny_backbone: Backbone) -> Iterator[Backbone]:
    tiny_model.disturb(tiny_backbone, "one", seed=1)
    tiny_model.disturb(tiny_backbone, "two", seed=2)
    yield tiny_backbone
    tiny_backbone.drop("one")
    tiny_backbone.drop("two")


def test_the_tiny_model_takes_the_fast_paths(backbone: Backbone) -> None:
    assert (backbone.form, backbone.precision) == ("blocks", "fp32")
    assert backbone.shares_prompts and backbone.plain_head


@pytest.mark.parametrize("adapter", [BASE, "one"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_shared_prompts_give_the_plain_logps(backbone: Backbone, layout: str, adapter: str) -> None:
    sequences = LAYOUTS[layout]
    with torch.no_grad():
        found = backbone.logps(adapter, backbone.pack(sequences))
        expected = torch.cat([tiny_model.plain_logps(backbone, adapter, one) for one in sequences])
    assert_close(found, expected, **EXACT)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_shared_prompts_give_the_plain_scores_and_values(backbone: Backbone, layout: str) -> None:
    sequences = LAYOUTS[layout]
    packed = backbone.pack(sequences)
    with torch.no_grad():
        plain = [tiny_model.plain_head(backbone, "one", sequence) for sequence in sequences]
        assert_close(backbone.scores("one", packed), torch.stack([one[-1] for one in plain]), **EXACT)
        assert_close(backbone.values("one", packed), torch.cat([one[:-1] for one in plain]), **EXACT)


def test_shared_prompts_give_the_plain_gradients(backbone: Backbone) -> None:
    sequences = LAYOUTS["ragged pairs"] + LAYOUTS["nine of one prompt"]
    weights = torch.linspace(-1, 1, sum(len(one.completion) for one in sequences))
    with backbone.training("one") as parameters:

        def gradients(logps: torch.Tensor, scores: torch.Tensor) -> list[torch.Tensor]:
            return list(torch.autograd.grad((logps * weights).sum() + scores.square().sum(), parameters))

        packed = pack(sequences)
        found = gradients(backbone.logps("one", packed), backbone.scores("one", packed))
        plain = torch.cat([tiny_model.plain_logps(backbone, "one", one) for one in sequences])
        expected = gradients(plain, torch.stack([tiny_model.plain_head(backbone, "one", one)[-1] for one in sequences]))
    for one, other in zip(found, expected, strict=True):
        assert other.norm() > 0
        assert (one - other).norm() <= 1e-3 * other.norm()


def test_two_adapters_train_at_once_and_the_rest_stay_frozen(backbone: Backbone) -> None:
    packed = pack(LAYOUTS["ragged pairs"])
    with backbone.training("one", "two"):
        loss = backbone.logps("one", packed).sum() + backbone.values("two", packed).sum()
        with torch.no_grad():
            backbone.logps(BASE, packed)  # a reference pass in between must not cut the gradients off
        loss.backward()
        for name in ("one", "two"):
            adapter = [p for p in backbone.parameters_of(name) if p.dim() == 2][:-1]
            assert all(p.grad is not None and p.grad.norm() > 0 for p in adapter)
    trained = {id(p) for name in ("one", "two") for p in backbone.parameters_of(name)}
    assert all(p.grad is None for p in backbone.weights.model.parameters() if id(p) not in trained)


@pytest.mark.parametrize("dropped", ["layout", "position_ids"])
def test_a_model_that_ignores_masks_or_positions_shares_no_prompts(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch, dropped: str
) -> None:
    forward = LlamaModel.forward

    def deaf(self: Any, **given: Any) -> Any:
        return forward(self, **{**given, dropped: None})

    monkeypatch.setattr(LlamaModel, "forward", deaf)
    made = Backbone(tiny_model.config(tiny_model_dir))
    assert (made.form, made.shares_prompts, made.plain_head) == ("plain", False, True)
    monkeypatch.setattr(LlamaModel, "forward", forward)
    sequences = LAYOUTS["ragged pairs"]
    with torch.no_grad():
        found = made.logps(BASE, made.pack(sequences))
        assert_close(found, torch.cat([tiny_model.plain_logps(made, BASE, one) for one in sequences]), **EXACT)


@pytest.mark.parametrize(
    ("window", "device", "flex"),
    [(None, "cuda", True), (44, "cuda", True), (43, "cuda", False), (None, "cpu", False)],  # sequences of up to 32 + 12
)
def test_a_window_within_reach_takes_no_block_mask(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch, window: int | None, device: str, flex: bool
) -> None:
    made = Backbone(tiny_model.config(tiny_model_dir))
    monkeypatch.setattr(made._base.config, "sliding_window", window, raising=False)
    monkeypatch.setattr(made, "accelerator", SimpleNamespace(device=torch.device(device)))
    assert list(made._implementations()) == ["plain", "blocks", *(["flex"] if flex else [])]


def test_a_model_that_bends_its_logits_takes_them_whole(tmp_path: Path) -> None:
    folder = tiny_model.save(
        tmp_path, config=Gemma2Config, model=Gemma2ForCausalLM, final_logit_softcapping=2.0, head_dim=8
    )
    made = Backbone(tiny_model.config(folder))
    assert not made.plain_head
    sequences = LAYOUTS["ragged pairs"]
    with torch.no_grad():
        found = made.logps(BASE, made.pack(sequences))
        assert_close(found, torch.cat([tiny_model.plain_logps(made, BASE, one) for one in sequences]), **EXACT)


def test_a_stored_adapter_comes_back_with_its_head(backbone: Backbone, tmp_path: Path) -> None:
    packed = pack(LAYOUTS["ragged pairs"])
    with torch.no_grad():
        before = backbone.scores("one", packed)
        backbone.save("one", tmp_path)
        backbone.load("again", tmp_path)
        assert_close(backbone.scores("again", packed), before, atol=0, rtol=0)
    backbone.drop("again")


def test_peft_reads_a_stored_adapter(backbone: Backbone, tiny_model_dir: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    backbone.save("one", tmp_path)
    other = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model_dir), tmp_path)
    sequence = LAYOUTS["a single completion"][0]
    ids = torch.tensor([[*sequence.prompt, *sequence.completion]])
    with torch.no_grad():
        logits = other(input_ids=ids).logits[0, len(sequence.prompt) - 1 : -1].log_softmax(-1)
        assert_close(backbone.logps("one", pack([sequence])), logits.gather(1, ids[0, -5:, None])[:, 0], **EXACT)


def test_few_adapters_stay_in_memory_and_those_in_training_always(backbone: Backbone, tmp_path: Path) -> None:
    backbone.save("one", tmp_path)
    backbone.load("kept", tmp_path)
    with backbone.training("kept"):
        for i in range(12):
            backbone.load(f"other {i}", tmp_path)
        loaded = set(backbone.weights.model.peft_config)
    assert {"kept", "other 11"} <= loaded
    assert "other 0" not in loaded
    for name in loaded - {"blank", "one", "two"}:
        backbone.drop(name)


def test_a_new_adapter_changes_nothing(backbone: Backbone) -> None:
    backbone.add("new", seed=3)
    packed = pack(LAYOUTS["ragged pairs"])
    with torch.no_grad():
        assert_close(backbone.logps("new", packed), backbone.logps(BASE, packed), atol=0, rtol=0)
    backbone.drop("new")


def edited(folder: Path, name: str, **changes: Any) -> Path:
    """Set entries of a JSON file of a model folder; ``None`` takes one out."""
    found = json.loads((folder / name).read_text()) | changes
    (folder / name).write_text(json.dumps({key: value for key, value in found.items() if value is not None}))
    return folder


def test_a_tokenizer_without_an_end_is_refused(tiny_model_dir: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))
    with pytest.raises(BadInput, match="no eos_token"):
        Backbone(tiny_model.config(edited(folder, "tokenizer_config.json", eos_token=None)))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("tokenizer_config.json", {"eos_token": "w5"}),
        ("tokenizer_config.json", {"unk_token": "w5"}),
        ("tokenizer.json", {"normalizer": {"type": "Lowercase"}}),
        ("config.json", {"rms_norm_eps": 1e-3}),
        ("config.json", {"rope_parameters": {"rope_theta": 5000.0, "rope_type": "default"}}),
    ],
)
def test_what_a_model_folder_decides_is_in_the_digest(
    tiny_model_dir: Path, tiny_backbone: Backbone, tmp_path: Path, name: str, changes: dict[str, Any]
) -> None:
    folder = Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))
    assert Backbone(tiny_model.config(folder)).digest == tiny_backbone.digest  # wherever it lies
    assert Backbone(tiny_model.config(edited(folder, name, **changes))).digest != tiny_backbone.digest
