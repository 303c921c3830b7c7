"""KTO, SimPO and ORPO equal TRL's on the same rows, as in ``test_trl_parity``."""

import os

import pytest
import torch
from torch.testing import assert_close

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before TRL is imported: it calls home otherwise
trl = pytest.importorskip("trl")

import tiny_model  # noqa: E402
from datasets import Dataset  # noqa: E402
from torch.nn.utils.rnn import pad_sequence  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

from alignarena.core.contract import Batch  # noqa: E402
from alignarena.methods.parts.offline_losses import KTOLoss, ORPOLoss, SimPOLoss, mean_logps  # noqa: E402

PAIRS = {
    "prompt": ["w1 w2 w3", "w4", "w5 w6 w7 w8 w9", "w10 w11"],
    "chosen": [" w20", " w21 w22 w23 w24", " w25 w26", " w27 w28 w29 w30 w31 w32"],
    "rejected": [" w40 w41 w42", " w43", " w44 w45 w46 w47 w48", " w49"],
}
# one prompt: then TRL's reference point, a mean over the batch of each prompt with its neighbour's completion, is ours
SINGLES = {"prompt": ["w1 w2 w3"] * 4, "completion": PAIRS["chosen"], "label": [True, False, True, False]}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return folders of a policy and a reference model, random and different."""
    return [tiny_model.save(tmp_path_factory.mktemp(name), seed) for seed, name in enumerate(("policy", "reference"))]


def arguments(folder, **more):
    common = {"output_dir": str(folder), "use_cpu": True, "bf16": False, "gradient_checkpointing": False}
    return common | {"report_to": [], "max_length": None, "per_device_train_batch_size": 4, "disable_tqdm": True} | more


def model_of(folder):
    return AutoModelForCausalLM.from_pretrained(folder)


def trl_loss(trainer):
    """Return TRL's loss on all rows, and its gradient of the input embeddings."""
    trainer.model.train()  # its metrics are filed by this
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    return loss.detach(), trainer.model.get_input_embeddings().weight.grad


def logps(model, tokenizer, prompts, completions):
    """Return log-probs and mask (B, T) by one plain forward a row."""
    rows = []
    for prompt, completion in zip(prompts, completions, strict=True):
        prompt_ids = tokenizer(prompt)["input_ids"]
        ids = tokenizer(completion)["input_ids"] + [tokenizer.eos_token_id]
        logits = model(torch.tensor([prompt_ids + ids])).logits[0, len(prompt_ids) - 1 : -1]
        rows.append(logits.log_softmax(-1).gather(1, torch.tensor(ids)[:, None])[:, 0])
    return pad_sequence(rows, batch_first=True), pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)


@pytest.mark.parametrize("swapped", [False, True])
def test_kto(folders, tmp_path, swapped):
    first, second = folders[::-1] if swapped else folders
    tokenizer = AutoTokenizer.from_pretrained(first)
    trainer = trl.KTOTrainer(
        model_of(first),
        model_of(second),
        trl.KTOConfig(**arguments(tmp_path, beta=0.3, desirable_weight=1.2, undesirable_weight=0.7)),
        train_dataset=Dataset.from_dict(SINGLES),
        processing_class=tokenizer,
    )
    expected = trl_loss(trainer)
    policy, reference = model_of(first), model_of(second)
    outputs, mask = logps(policy, tokenizer, SINGLES["prompt"], SINGLES["completion"])
    with torch.no_grad():
        frozen, _ = logps(reference, tokenizer, SINGLES["prompt"], SINGLES["completion"])
    labels = {"desirable": torch.tensor(SINGLES["label"], dtype=torch.float32)}
    rows, ours = KTOLoss(0.3, 1.2, 0.7)(both(outputs), Batch(mask=both(mask), reference=both(frozen), columns=labels))
    loss = rows.mean()
    loss.backward()
    assert_close((loss.detach(), policy.get_input_embeddings().weight.grad), expected, atol=1e-4, rtol=1e-4)
    assert float(ours["kl"].mean()) == pytest.approx(trainer._metrics["train"]["kl"][0], abs=1e-4)


def both(values):
    """As completions, and all of them beside each."""
    return {"completion": values, "mismatched": values[None].expand(len(values), -1, -1)}


def pair_sides(model, tokenizer):
    sides = {side: logps(model, tokenizer, PAIRS["prompt"], PAIRS[side]) for side in ("chosen", "rejected")}
    outputs = {side: one for side, (one, _) in sides.items()}
    return outputs, Batch(mask={side: mask for side, (_, mask) in sides.items()})


def test_simpo(folders, tmp_path):
    cpo = pytest.importorskip("trl.experimental.cpo")  # TRL's SimPO is a setting of its CPO; experimental may vanish
    tokenizer = AutoTokenizer.from_pretrained(folders[0])
    trainer = cpo.CPOTrainer(
        model_of(folders[0]),
        cpo.CPOConfig(**arguments(tmp_path, beta=2.0, simpo_gamma=0.6, loss_type="simpo", cpo_alpha=0.0)),
        train_dataset=Dataset.from_dict(PAIRS),
        processing_class=tokenizer,
    )
    expected = trl_loss(trainer)
    policy = model_of(folders[0])
    rows, _ = SimPOLoss(beta=2.0, gamma=0.6)(*pair_sides(policy, tokenizer))
    loss = rows.mean()
    loss.backward()
    assert_close((loss.detach(), policy.get_input_embeddings().weight.grad), expected, atol=1e-4, rtol=1e-4)


def test_orpo(folders, tmp_path):
    orpo = pytest.importorskip("trl.experimental.orpo")
    tokenizer = AutoTokenizer.from_pretrained(folders[0])
    trainer = orpo.ORPOTrainer(
        model_of(folders[0]),
        orpo.ORPOConfig(**arguments(tmp_path, beta=0.4)),
        train_dataset=Dataset.from_dict(PAIRS),
        processing_class=tokenizer,
    )
    outputs, batch = pair_sides(model_of(folders[0]), tokenizer)
    sides = mean_logps(outputs, batch)
    weighted, *_ = trainer.odds_ratio_loss(sides["chosen"], sides["rejected"])
    rows, ours = ORPOLoss(odds_coef=0.4)(outputs, batch)
    assert_close(rows, -sides["chosen"] - weighted, atol=1e-5, rtol=1e-5)  # its SFT term has the prompt in it as well
    _, theirs = trainer.get_batch_loss_metrics(trainer.model, next(iter(trainer.get_train_dataloader())))
    for name, of in {"mean_logps_chosen": "logps/chosen", "margin": "log_odds_chosen"}.items():
        assert float(ours[name].mean()) == pytest.approx(theirs[of], abs=1e-4), name
