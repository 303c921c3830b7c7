"""RLOO and GRPO equal TRL's on the same rollouts: advantages, loss and gradient; ours see a plain forward."""

import os

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.testing import assert_close

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before TRL is imported: it calls home otherwise
trl = pytest.importorskip("trl")

import tiny_model  # noqa: E402
from datasets import Dataset  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

from alignarena.core.contract import Batch  # noqa: E402
from alignarena.methods.parts.group_losses import GRPOLoss, RLOOLoss  # noqa: E402

PROMPTS = ["w1 w2 w3"] * 3 + ["w4 w5"] * 3
COMPLETIONS = ["w20", "w21 w22 w23 w24", "w25 w26", "w27 w28 w29", "w30", "w31 w32"]
SCORES = [100.0, 350.0, 120.0, -80.0, 60.0, 10.0]  # so wide that TRL's 1e-4 beside the deviation is nothing
MOVED = [0.3, -0.4, 0.0, 0.15, -0.1, 0.05]  # nats a token, from sampling to now: some are clipped
SHARED = {"num_generations": 3, "per_device_train_batch_size": 6, "max_completion_length": 8, "disable_tqdm": True,
          "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": [], "beta": 0.3}  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return folders of a policy and a reference model, random and different."""
    return [tiny_model.save(tmp_path_factory.mktemp(name), seed) for seed, name in enumerate(("policy", "reference"))]


def ids_of(tokenizer):
    """Return the ids of prompts and completions, which end."""
    prompts = [tokenizer(text)["input_ids"] for text in PROMPTS]
    return prompts, [tokenizer(text)["input_ids"] + [tokenizer.eos_token_id] for text in COMPLETIONS]


def theirs(trainer, reference, tokenizer):
    """Return TRL's advantages, loss and gradient; its log-probs at sampling are moved, after the advantages."""
    prompts, completions = ids_of(tokenizer)
    is_rloo = isinstance(trainer, trl.RLOOTrainer)
    # GRPO's generation also tells of tools, of log-probs, of further fields and of images: here there are none
    drawn = (prompts, completions, *((COMPLETIONS,) if is_rloo else (None, COMPLETIONS, None, {}, None, None)))
    trainer.ref_model.load_state_dict(reference.state_dict())  # TRL has patched its forward: not another model
    trainer._generate = lambda prompts: drawn
    trainer.model.train()
    inputs = trainer._generate_and_score_completions([{"prompt": prompt} for prompt in PROMPTS])
    mask, moved = inputs["completion_mask"], torch.tensor(MOVED)[:, None]
    with torch.no_grad():
        ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
        both = torch.cat([inputs["prompt_mask"], mask], 1)
        old = trainer._get_per_token_logps_and_entropies(trainer.model, ids, both, mask.shape[1])[0] - moved
    inputs |= {"old_logps": (old * mask).sum(1)} if is_rloo else {"old_per_token_logps": old}
    trainer.current_gradient_accumulation_steps = 1
    loss = trainer._compute_loss(trainer.model, inputs)
    loss.backward()
    return inputs["advantages"], loss.detach(), trainer.model.get_input_embeddings().weight.grad


def logps(model, tokenizer):
    """Return log-probs (B, T) by one plain forward a row."""
    rows = []
    for prompt, completion in zip(*ids_of(tokenizer), strict=True):
        logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
        rows.append(logits.log_softmax(-1).gather(1, torch.tensor(completion)[:, None])[:, 0])
    return pad_sequence(rows, batch_first=True)


def ours(loss, folders, tokenizer):
    """Return our advantages, loss and gradient."""
    policy, reference = (AutoModelForCausalLM.from_pretrained(folder) for folder in folders)
    outputs, frozen = logps(policy, tokenizer), logps(reference, tokenizer).detach()
    mask = pad_sequence([torch.ones(len(ids)) for ids in ids_of(tokenizer)[1]], batch_first=True)
    batch = Batch(
        mask={"completion": mask},
        finished={"completion": torch.ones(6, dtype=torch.bool)},
        old={"completion": outputs.detach()},
        reference={"completion": frozen},
        columns={"score": torch.tensor(SCORES), "group": torch.tensor([0.0] * 3 + [1.0] * 3)},
    )
    batch.prepared = loss.prepare(batch, {})
    batch.old = {"completion": outputs.detach() - torch.tensor(MOVED)[:, None]}
    mean = loss({"completion": outputs}, batch)[0].mean()
    mean.backward()
    return batch.prepared["advantages"], mean.detach(), policy.get_input_embeddings().weight.grad


@pytest.mark.parametrize("name", ["rloo", "grpo"])
def test_group_losses(folders, tmp_path, name):
    tokenizer = AutoTokenizer.from_pretrained(folders[0])
    paper = {"loss_type": "grpo", "use_bias_correction_kl": False}  # TRL's defaults are others
    kinds = {
        "rloo": (trl.RLOOTrainer, trl.RLOOConfig, {}, RLOOLoss(kl_coef=0.3)),
        "grpo": (trl.GRPOTrainer, trl.GRPOConfig, paper, GRPOLoss(kl_coef=0.3)),
    }
    trainer, config, more, loss = kinds[name]
    made = trainer(
        AutoModelForCausalLM.from_pretrained(folders[0]),
        reward_funcs=lambda completions, **_: SCORES,
        args=config(output_dir=str(tmp_path), **SHARED, **more),
        train_dataset=Dataset.from_dict({"prompt": PROMPTS}),
        processing_class=tokenizer,
    )
    expected = theirs(made, AutoModelForCausalLM.from_pretrained(folders[1]), tokenizer)
    found = ours(loss, folders, tokenizer)
    assert_close(found[:2], expected[:2], atol=1e-4, rtol=1e-4)
    assert_close(found[2], expected[2], atol=1e-4, rtol=1e-3)  # summed in another order, which processors round apart
    assert found[1].abs() > 1e-3
