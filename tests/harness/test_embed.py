"""Embeddings: the mean hidden state that a plain forward of each completion has, computed once and charged."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import toy_task
from datasets import Dataset

from alignarena.harness.lab import HarnessLab
from alignarena.harness.weights import BASE

NewLab = Callable[..., HarnessLab]
ROWS = Dataset.from_list(
    [{**row, "completion": toy_task.words(row["prompt_id"], "embedded", i)}
     for row in toy_task.prompts(3).to_list() for i in range(3)]
)  # fmt: skip


def test_it_is_the_mean_state_before_each_token(new_lab: NewLab) -> None:
    lab = new_lab()
    found = lab.embed(toy_task.base(lab), ROWS)
    for row, embedding in zip(ROWS.to_list(), found["embedding"], strict=True):
        sequence = lab._sequence(row)
        ids = torch.tensor([[*sequence.prompt, *sequence.completion]])
        with torch.no_grad():
            hidden = lab.backbone.decode(BASE, input_ids=ids).last_hidden_state[0]
        plain = hidden[len(sequence.prompt) - 1 : -1].mean(0)
        assert embedding == pytest.approx(plain.tolist(), abs=1e-4)


def test_the_second_time_it_is_read_and_charged_alike(new_lab: NewLab, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = new_lab(), new_lab()
    made = first.embed(toy_task.base(first), ROWS)
    monkeypatch.setattr(second.memo, "_computed", None)
    assert second.embed(toy_task.base(second), ROWS).to_list() == made.to_list()
    assert first.account.charged.scored_tokens == second.account.charged.scored_tokens > 0


def test_a_lab_notes_whose_feedback_and_whose_texts_were_used(new_lab: NewLab) -> None:
    lab = new_lab()
    base = toy_task.base(lab)
    lab.score(ROWS, toy_task.Favours())
    lab.sample(base, toy_task.prompts(), stream="written")
    assert lab.account.lineage == {"favours", base.digest}
