"""The words of a world and its base model: nothing but completions has mass, and they are as its text says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alignarena.benchmarks.exact import language
from alignarena.benchmarks.exact.laboratory import Prompts
from alignarena.core.model import ModelConfig
from alignarena.evaluators.exact.optimum import kl
from alignarena.evaluators.exact.world import World, prompt_text
from alignarena.harness.backbone import Backbone
from alignarena.harness.policy import AdapterPolicy
from alignarena.harness.tokens import Tokens

TINY = World(attributes=2, values=2, tokens=2, length=2)
CONFIG = ModelConfig("exact-world", None, max_prompt_tokens=16, max_new_tokens=2, use_peft=False, precision="fp32")


def test_words_are_tokens_and_back() -> None:
    world = World()
    tokens = Tokens(language.tokenizer(world), CONFIG)
    assert tokens.completion_ids("t0 t5 t3") == (0, 5, 3, world.tokens) == (0, 5, 3, tokens.eos_id)
    assert tokens.text((0, 5, 3, tokens.eos_id)) == "t0 t5 t3" and tokens.completion_ids("") == (tokens.eos_id,)
    assert tokens.tokenizer.pad_token_id == world.tokens + 1 == len(language.completion_words(world)) + 1
    seen = {tokens.prompt_ids(prompt_text(prompt)) for prompt in world.combinations}
    assert len(seen) == len(world.combinations) and {len(ids) for ids in seen} == {world.attributes + 1}
    assert all(tokens.tokenizer.unk_token_id not in ids for ids in seen)
    assert tokens.tokenizer.convert_ids_to_tokens(tokens.prompt_ids("a2 b0 c1")) == ["a2", "b0", "c1", language.ANSWER]


def test_words_for_instructions_are_kept_free() -> None:
    words = language.tokenizer(TINY)
    ids = words(" ".join(language.INSTRUCTIONS))["input_ids"]
    assert len(set(ids)) == len(language.INSTRUCTIONS) and words.unk_token_id not in ids
    assert words("a9 t2 hello")["input_ids"] == [words.unk_token_id] * 3


def test_the_base_is_made_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNARENA_CACHE", str(tmp_path))
    monkeypatch.setattr(language, "_PRETRAINING_ROWS", 64)
    folder = Path(language.base_model(TINY, CONFIG))
    half_made, weights = folder.with_name(f".{folder.name}.blank"), (folder / "model.safetensors").read_bytes()
    assert not half_made.exists()
    with monkeypatch.context() as patch:
        patch.setattr(language, "_pretrain", lambda *_: pytest.fail("it was there"))
        assert language.base_model(TINY, CONFIG) == str(folder)
    (folder / "config.json").unlink()  # as a pretraining leaves it that was killed
    half_made.mkdir()
    assert language.base_model(TINY, CONFIG) == str(folder)
    assert (folder / "model.safetensors").read_bytes() == weights and not half_made.exists()


def test_only_completions_have_mass(small_world: Any) -> None:
    backbone, trained = small_world.start.backbone, small_world.laboratory.trained
    world = trained.world
    ids = torch.tensor([[*backbone.tokens.prompt_ids(row["prompt"]), 0, 1] for row in trained.rows])
    for policy in (AdapterPolicy(backbone.digest), small_world.bench.sft):
        with torch.no_grad():
            hidden = backbone.decode(policy.load(backbone), input_ids=ids).last_hidden_state
            probabilities = torch.softmax(backbone.head(policy.load(backbone))(hidden).float(), -1)
        assert not probabilities[..., world.tokens + 1 :].any()
        assert np.exp(trained.enumeration.logps(policy)).sum(1) == pytest.approx(1, abs=1e-6)


def test_the_base_speaks_the_pretraining_text_and_sft_the_demonstrations(small_world: Any) -> None:
    backbone: Backbone = small_world.start.backbone
    prompts: Prompts = small_world.laboratory.trained
    leaves, base = prompts.world.leaves, prompts.enumeration.logps(AdapterPolicy(backbone.digest))
    stated = np.stack([leaves.markov(prompts.world.pretraining_logits(one)) for one in prompts.combinations])
    shown = np.stack([leaves.markov(prompts.world.demonstration_logits(one)) for one in prompts.combinations])
    assert kl(stated, base).mean() < 0.05 < kl(shown, base).mean()
    assert kl(shown, prompts.log_reference).mean() < 0.5 * kl(shown, base).mean()
