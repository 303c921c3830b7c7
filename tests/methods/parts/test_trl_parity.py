"""The losses equal TRL's on the same rows: its trainers tokenise, collate and compute; ours see a plain forward."""

import os

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.testing import assert_close

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before TRL is imported: it calls home otherwise
trl = pytest.importorskip("trl")

import tiny_model  # noqa: E402
from datasets import Dataset  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from alignarena.core.contract import Batch  # noqa: E402
from alignarena.methods.parts.losses import DPOLoss, SFTLoss  # noqa: E402
from alignarena.methods.parts.reward_losses import PairwiseRewardLoss  # noqa: E402

PAIRS = {
    "prompt": ["w1 w2 w3", "w4", "w5 w6 w7 w8 w9", "w10 w11"],
    "chosen": [" w20", " w21 w22 w23 w24", " w25 w26", " w27 w28 w29 w30 w31 w32"],
    "rejected": [" w40 w41 w42", " w43", " w44 w45 w46 w47 w48", " w49"],
}
DEMONSTRATIONS = {"prompt": PAIRS["prompt"], "completion": PAIRS["chosen"]}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return folders of a policy and a reference model, random and different."""
    return [tiny_model.save(tmp_path_factory.mktemp(name), seed) for seed, name in enumerate(("policy", "reference"))]


def arguments(folder, **more):
    return {
        "output_dir": str(folder),
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": [],
        "max_length": None,
        "per_device_train_batch_size": 4,
        "disable_tqdm": True,
        **more,
    }


def trl_loss(trainer):
    """Return TRL's loss on all rows, and its gradient of the input embeddings."""
    trainer.model.train()  # its metrics are filed by this
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    return loss.detach(), trainer.model.get_input_embeddings().weight.grad


def encode(tokenizer, prompt, completion):
    prompt_ids = tokenizer(prompt)["input_ids"]
    return prompt_ids, tokenizer(completion)["input_ids"] + [tokenizer.eos_token_id]


def logps(model, tokenizer, prompts, completions):
    """Return log-probs and mask (B, T) by one plain forward a row."""
    rows = []
    for prompt, completion in zip(prompts, completions, strict=True):
        prompt_ids, completion_ids = encode(tokenizer, prompt, completion)
        logits = model(torch.tensor([prompt_ids + completion_ids])).logits[0, len(prompt_ids) - 1 : -1]
        rows.append(logits.log_softmax(-1).gather(1, torch.tensor(completion_ids)[:, None])[:, 0])
    mask = [torch.ones_like(row) for row in rows]
    return pad_sequence(rows, batch_first=True), pad_sequence(mask, batch_first=True)


def test_sft(folders, tmp_path):
    trainer = trl.SFTTrainer(
        AutoModelForCausalLM.from_pretrained(folders[0]),
        trl.SFTConfig(**arguments(tmp_path)),
        train_dataset=Dataset.from_dict(DEMONSTRATIONS),
        processing_class=AutoTokenizer.from_pretrained(folders[0]),
    )
    expected = trl_loss(trainer)
    model, tokenizer = (kind.from_pretrained(folders[0]) for kind in (AutoModelForCausalLM, AutoTokenizer))
    outputs, mask = logps(model, tokenizer, *DEMONSTRATIONS.values())
    rows, _ = SFTLoss()({"completion": outputs}, Batch(mask={"completion": mask}))
    loss = rows.sum() / mask.sum()  # per token
    loss.backward()
    assert_close((loss.detach(), model.get_input_embeddings().weight.grad), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("precomputed", [False, True])
def test_dpo(folders, tmp_path, precomputed):
    trainer = trl.DPOTrainer(
        AutoModelForCausalLM.from_pretrained(folders[0]),
        AutoModelForCausalLM.from_pretrained(folders[1]),
        trl.DPOConfig(**arguments(tmp_path, beta=0.3, precompute_ref_log_probs=precomputed)),
        train_dataset=Dataset.from_dict(PAIRS),
        processing_class=AutoTokenizer.from_pretrained(folders[0]),
    )
    expected = trl_loss(trainer)
    metrics = {name: sum(values) / len(values) for name, values in trainer._metrics["train"].items()}
    policy, reference = (AutoModelForCausalLM.from_pretrained(folder) for folder in folders)
    tokenizer = AutoTokenizer.from_pretrained(folders[0])
    sides = {side: logps(policy, tokenizer, PAIRS["prompt"], PAIRS[side]) for side in ("chosen", "rejected")}
    with torch.no_grad():
        frozen = {side: logps(reference, tokenizer, PAIRS["prompt"], PAIRS[side])[0] for side in sides}
    batch = Batch(mask={side: mask for side, (_, mask) in sides.items()}, reference=frozen)
    rows, ours = DPOLoss(beta=0.3)({side: outputs for side, (outputs, _) in sides.items()}, batch)
    loss = rows.mean()
    loss.backward()
    assert_close((loss.detach(), policy.get_input_embeddings().weight.grad), expected, atol=1e-4, rtol=1e-4)
    assert rows.std() > 0.1  # the models differ, so the reference matters
    for name, theirs in {
        "margin": "rewards/margins",
        "rewards_chosen": "rewards/chosen",
        "rewards_rejected": "rewards/rejected",
        "logps_chosen": "logps/chosen",
        "accuracy": "rewards/accuracies",
    }.items():
        assert float(ours[name].mean()) == pytest.approx(metrics[theirs], abs=1e-4), name


@pytest.mark.parametrize("margins", [None, [0.0, 1 / 3, 1.0, 3.0]])
def test_reward_model(folders, tmp_path, margins):
    start = AutoModelForSequenceClassification.from_pretrained(folders[0], num_labels=1)
    model = AutoModelForSequenceClassification.from_pretrained(folders[0], num_labels=1)
    model.load_state_dict(start.state_dict())  # the head is random
    tokenizer = AutoTokenizer.from_pretrained(folders[0])
    trainer = trl.RewardTrainer(
        start,
        trl.RewardConfig(**arguments(tmp_path)),
        train_dataset=Dataset.from_dict(PAIRS if margins is None else PAIRS | {"margin": margins}),
        processing_class=tokenizer,
    )
    expected = trl_loss(trainer)
    outputs = {}
    for side in ("chosen", "rejected"):
        rows = [encode(tokenizer, *row) for row in zip(PAIRS["prompt"], PAIRS[side], strict=True)]
        outputs[side] = torch.cat([model(torch.tensor([prompt + completion])).logits[0] for prompt, completion in rows])
    columns = {} if margins is None else {"margin": torch.tensor(margins)}
    losses, ours = PairwiseRewardLoss(margin=margins is not None)(outputs, Batch(mask={}, columns=columns))
    loss = losses.mean()
    loss.backward()
    assert_close((loss.detach(), model.get_input_embeddings().weight.grad), expected, atol=1e-4, rtol=1e-4)
    for name in ("accuracy", "margin"):
        assert float(ours[name].mean()) == pytest.approx(trainer._metrics["train"][name][0], abs=1e-4), name
