"""What both sides of an online update are built of: one loss, one neural reward model, one start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from alignarena.benchmarks.perf import theirs
from alignarena.benchmarks.perf.bench import Bench
from alignarena.benchmarks.perf.ours import first_adapter
from alignarena.benchmarks.perf.rloo import RLOOLoss
from alignarena.benchmarks.perf.terms import Precision, Settings, Terms
from alignarena.benchmarks.perf.work import Comparison
from alignarena.harness.backbone import Backbone
from alignarena.harness.reward_model import RewardModel
from alignarena.harness.tokens import Tokens
from alignarena.harness.weights import BASE

_REWARD_MODEL = "reward-model"
Score = Callable[..., list[float]]


def online_terms(
    bench: Bench, use_peft: bool, prompts: int, steps: int, length: int, precision: Precision | None = None
) -> Terms:
    """Return the terms of updates on completions of a fixed length."""
    return bench.terms(use_peft, prompts, steps, precision, max_new_tokens=length)


def online_loss(n: int) -> RLOOLoss:
    """Return TRL's algorithm at TRL's values."""
    return RLOOLoss(n, theirs.KL_COEF, theirs.CLIPRANGE)


def stored_reward_model(backbone: Backbone, folder: Path) -> tuple[RewardModel, torch.Tensor]:
    """Store a copy of the base with a random head, which no other pass can share; return it and its head (1, D)."""
    backbone.add(_REWARD_MODEL, BASE, seed=1)
    backbone.add_head(_REWARD_MODEL, seed=1)
    head = backbone.heads[_REWARD_MODEL].weight.detach().clone()
    backbone.save(_REWARD_MODEL, folder)
    backbone.drop(_REWARD_MODEL)
    return RewardModel(_REWARD_MODEL, folder, frozenset()), head


def their_score(
    terms: Terms, settings: Settings, head: torch.Tensor, prompts: Sequence[Comparison], tokens: Tokens
) -> Score:
    """Return the same reward model as a function for TRL: one padded batch, as TRL runs a classifier.

    Given the classifier itself, TRL would tokenise the decoded text anew and score other ids than were sampled.
    """
    model = theirs.scorer(terms, settings, theirs.compute_type(terms)).eval()
    theirs.set_head(model, head)
    ids_of = {tokens.tokenizer.decode(one.prompt): one.prompt for one in prompts}

    @torch.no_grad()
    def score(prompts: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        rows = [torch.tensor([*ids_of[text], *ids]) for text, ids in zip(prompts, completion_ids, strict=True)]
        ids = pad_sequence(rows, batch_first=True).to(model.device)
        mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True).to(model.device)
        hidden = model.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        scores = model.score(hidden[torch.arange(len(rows)), mask.sum(1) - 1])[:, 0]
        return [float(one) for one in scores]

    return score


def opponent(
    terms: Terms, settings: Settings, data: Sequence[Comparison], folder: Path, n: int, score: Score, backbone: Backbone
) -> Any:
    """Return their trainer, starting from the weights that ours starts from."""
    trainer = theirs.online(terms, settings, data, folder, n, score)
    if terms.use_peft:
        theirs.set_adapter(trainer, first_adapter(backbone))
    return trainer
