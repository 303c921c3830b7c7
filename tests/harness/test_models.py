"""From a model's name to a model."""

from pathlib import Path

import pytest
import tiny_model
import torch
from transformers import AutoTokenizer

from alignarena.core.contract import Sampling
from alignarena.core.errors import BadInput, RunFailed
from alignarena.core.model import ModelConfig
from alignarena.harness import models
from alignarena.harness.backbone import Backbone
from alignarena.harness.models import load_pretrained, resolve_model
from alignarena.harness.sampler import sample, uniforms
from alignarena.harness.tokens import TokenSequence
from alignarena.harness.weights import BASE

EMBEDDED = "smollm2-135m-instruct"


def test_a_folder_must_hold_a_model(tmp_path: Path, tiny_model_dir: Path) -> None:
    with pytest.raises(BadInput, match=r"holds no config.json; give a folder saved by save_pretrained"):
        resolve_model(str(tmp_path))
    with pytest.raises(BadInput, match=r"holds no config.json"):
        resolve_model("./no/such/folder")
    assert resolve_model(str(tiny_model_dir)) == str(tiny_model_dir)


def test_a_hub_id_without_a_network_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(RunFailed) as failed:
        Backbone(ModelConfig(model_name_or_path="nobody/no-such-model", precision="fp32"))
    assert "model 'nobody/no-such-model' cannot be loaded" in str(failed.value)
    assert "offline? give a local folder" in str(failed.value)
    assert "\n" not in str(failed.value)


def test_weights_that_are_not_safetensors_are_refused(tiny_model_dir: Path, tmp_path: Path) -> None:
    for file in tiny_model_dir.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(RunFailed, match="cannot be loaded"):
        Backbone(tiny_model.config(tmp_path))


def test_remote_code_is_never_trusted() -> None:
    class Loader:
        @staticmethod
        def from_pretrained(name: str, **options: object) -> dict[str, object]:
            return options

    assert load_pretrained(Loader, "x")["trust_remote_code"] is False


def test_without_the_wheel_the_embedded_name_is_its_hub_id(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ALIGNARENA_CACHE", str(tmp_path))
    monkeypatch.setattr(models, "_WHEEL", "no_such_wheel")
    assert resolve_model(EMBEDDED) == "HuggingFaceTB/SmolLM2-135M-Instruct"


def test_a_cache_that_cannot_be_written_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ALIGNARENA_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(models, "_WHEEL", "pytest")  # any package that is there
    with pytest.raises(BadInput, match=r"cannot write to the cache .*set ALIGNARENA_CACHE"):
        resolve_model(EMBEDDED)


@pytest.mark.slow
def test_the_embedded_model_is_converted_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    monkeypatch.setenv("ALIGNARENA_CACHE", str(tmp_path))
    folder = Path(resolve_model(EMBEDDED))
    assert folder == tmp_path / "models" / EMBEDDED
    assert (folder / "model.safetensors").is_file() and (folder / "config.json").is_file()
    assert AutoTokenizer.from_pretrained(folder).eos_token == "<|im_end|>"
    written = (folder / "model.safetensors").stat().st_mtime_ns
    monkeypatch.setattr(models, "_convert", None)  # a second conversion would fail
    assert resolve_model(EMBEDDED) == str(folder)
    assert (folder / "model.safetensors").stat().st_mtime_ns == written


@pytest.mark.slow
def test_the_embedded_model_takes_the_fast_paths_and_samples_what_it_scores() -> None:
    backbone = Backbone(ModelConfig(max_new_tokens=12))
    assert backbone.shares_prompts and backbone.plain_head
    assert backbone.tokens.tokenizer.convert_ids_to_tokens(backbone.tokens.eos_id) == "<|im_end|>"
    asked = ["Write one sentence about rain.", "Name a colour."]
    ids = [backbone.tokens.prompt_ids(text) for text in asked]
    drawn = sample(backbone, BASE, ids, [uniforms(0, "s", text, 2, 12) for text in asked], Sampling())
    for prompt, group in zip(ids, drawn, strict=True):
        sequences = [TokenSequence(prompt, one.completion) for one in group]
        with torch.no_grad():
            packed = backbone.pack(sequences)
            logps = backbone.logps(BASE, packed).split(packed.lengths)
        for one, found in zip(group, logps, strict=True):
            tolerance = 0.3 if backbone.precision == "bf16" else 1e-3
            assert one.logps == pytest.approx(found.tolist(), abs=tolerance)
