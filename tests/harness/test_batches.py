"""Rows into tensors: what a loss reads, what no loss can use, and where every number stands."""

from typing import Any

import pytest
import tiny_model
import torch
from datasets import Dataset

from alignarena.core.errors import BadInput
from alignarena.harness.batches import Collator, examples, grouped, sequences_of
from alignarena.harness.tokens import Tokens
from alignarena.methods.parts.losses import DPOLoss, SFTLoss
from alignarena.methods.parts.policy_gradient import PPOLoss
from alignarena.methods.parts.reward_losses import KWiseRewardLoss


@pytest.fixture(scope="module")
def tokens() -> Tokens:
    return Tokens(tiny_model.tokenizer(), tiny_model.config("tiny"))  # type: ignore[arg-type]


def pair(chosen: str, rejected: str, **more: Any) -> dict[str, Any]:
    return {"prompt_id": "p", "prompt": "w1 w2", "chosen": chosen, "rejected": rejected, **more}


def test_rows_no_loss_can_use_are_dropped_by_reason(tokens: Tokens) -> None:
    too_long = " ".join(["w9"] * 12)  # and its EOS: 13 of at most 12
    rows = [pair("w1", "w2"), pair("w3", "w3"), pair(too_long, "w2"), pair("w2", too_long), pair("", "w1")]
    kept, dropped = examples(Dataset.from_list(rows), DPOLoss(), tokens)
    assert len(kept) == 2  # ending at once is a completion too: its EOS
    assert dropped == {"identical completions": 1, "longer than max_new_tokens": 2}


def test_equal_completions_of_two_prompts_are_no_pair(tokens: Tokens) -> None:
    row = {"prompt_id": "p", "prompt": "w1", "completion": "w2", "score": 1.0}
    shown = [{**row, "demonstration_prompt": prompt, "demonstration": "w2"} for prompt in ("w1", "w3")]
    kept, dropped = examples(Dataset.from_list(shown), PPOLoss(ptx_coef=0.1), tokens)
    assert (len(kept), dict(dropped)) == (2, {})  # the policy wrote what it was shown: nothing is compared
    assert len(sequences_of(kept)) == 2


def test_a_sampled_completion_without_tokens_is_dropped(tokens: Tokens) -> None:
    row = {"prompt_id": "p", "prompt": "w1", "completions": ["w1", "w2"], "ranks": [1, 2]}
    rows = [{**row, "completions_ids": [[7, 1], [8]]}, {**row, "completions_ids": [[7, 1], []]}]
    kept, dropped = examples(Dataset.from_list(rows), KWiseRewardLoss(), tokens)
    assert (len(kept), dict(dropped)) == (1, {"empty completion": 1})


def test_a_missing_column_is_named(tokens: Tokens) -> None:
    rows = Dataset.from_list([{"prompt_id": "p", "prompt": "w1", "completion": "w2"}])
    with pytest.raises(BadInput, match=r"PPOLoss reads \['score'\], which the rows lack"):
        examples(rows, PPOLoss(), tokens)
    with pytest.raises(BadInput, match=r"DPOLoss reads \['chosen', 'rejected'\]"):
        examples(rows, DPOLoss(), tokens)


def test_no_rows_left_says_why(tokens: Tokens) -> None:
    with pytest.raises(BadInput, match="no rows left to train DPOLoss on: 2 identical completions"):
        examples(Dataset.from_list([pair("w1", "w1")] * 2), DPOLoss(), tokens)


def test_a_prompt_that_is_too_long_is_named(tokens: Tokens) -> None:
    row = {"prompt_id": "endless", "prompt": " ".join(["w1"] * 40), "completion": "w2"}
    with pytest.raises(BadInput, match=r"'endless' has 43 tokens, more than model.max_prompt_tokens = 32"):
        examples(Dataset.from_list([row]), SFTLoss(), tokens)


def test_sampled_ids_are_never_tokenised_again(tokens: Tokens) -> None:
    row = {"prompt_id": "p", "prompt": "w1", "prompt_ids": [4, 5], "completion": "w1 w2", "completion_ids": [9, 9, 9]}
    (example,), _ = examples(Dataset.from_list([row]), SFTLoss(), tokens)
    (sequence,) = example.sequences["completion"]
    assert (sequence.prompt, sequence.completion) == ((4, 5), (9, 9, 9))


def test_pairs_stand_where_the_loss_expects_them(tokens: Tokens) -> None:
    rows = [pair("w1 w2 w3", "w4", margin=0.5), pair("w4", "w5 w6", margin=1.0)]
    items, _ = examples(Dataset.from_list(rows), DPOLoss(), tokens)
    sequences = sequences_of(items)
    assert len(sequences) == 3  # w4 is computed once
    lengths = [len(sequence.completion) for sequence in sequences]
    flat = torch.cat([10.0 * s + torch.arange(length) for s, length in enumerate(lengths)])
    collator = Collator(items, sequences, tokens)
    spread, batch = collator.spread(flat), collator.batch(torch.device("cpu"))
    order = {sequence.completion: 10.0 * s for s, sequence in enumerate(sequences)}
    w4, w123 = tokens.completion_ids("w4"), tokens.completion_ids("w1 w2 w3")
    assert spread["chosen"].tolist()[0] == [order[w123] + t for t in range(4)]
    assert spread["chosen"].tolist()[1] == [order[w4], order[w4] + 1, 0, 0]
    assert spread["rejected"].tolist()[0] == [order[w4], order[w4] + 1, 0, 0]
    assert batch.mask["rejected"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 0]]
    assert batch.finished["chosen"].tolist() == [True, True]


def test_ragged_rankings_leave_absent_places_empty(tokens: Tokens) -> None:
    rows = [
        {"prompt_id": "p", "prompt": "w1", "completions": ["w1", "w2", "w3"], "ranks": [2, 1, 3]},
        {"prompt_id": "q", "prompt": "w2", "completions": ["w4 w5", "w1"], "ranks": [1, 2]},
    ]
    items, _ = examples(Dataset.from_list(rows), KWiseRewardLoss(), tokens)
    sequences = sequences_of(items)
    collator = Collator(items, sequences, tokens)
    batch = collator.batch(torch.device("cpu"))
    assert batch.mask["completions"].sum(-1).tolist() == [[2, 2, 2], [3, 2, 0]]
    assert batch.columns["ranks"][0].tolist() == [2, 1, 3]
    assert batch.columns["ranks"][1].isnan().tolist() == [False, False, True]
    assert batch.finished["completions"].tolist() == [[True] * 3, [True, True, False]]
    assert collator.pick(torch.arange(6.0))["completions"].tolist() == [[0, 1, 2], [3, 4, 5]]


def spanned(chosen: str, rejected: str, *spans: tuple[int, int]) -> dict[str, Any]:
    sides = {f"{side}_span": list(span) for side, span in zip(("chosen", "rejected"), spans, strict=True)}
    return pair(chosen, rejected, **sides)


def test_a_span_is_all_that_a_loss_sees(tokens: Tokens) -> None:
    rows = [spanned("w1 w2 w3", "w4 w5", (1, 3), (0, 2)), spanned("w6", "w7 w8 w9", (0, 1), (3, 4))]
    items, _ = examples(Dataset.from_list(rows), DPOLoss(), tokens)
    collator = Collator(items, sequences_of(items), tokens)
    mask = collator.batch(torch.device("cpu")).mask
    assert mask["chosen"].tolist() == [[0, 1, 1, 0], [1, 0, 0, 0]]
    assert mask["rejected"].tolist() == [[1, 1, 0, 0], [0, 0, 0, 1]]
    assert [(item.tokens("chosen"), item.tokens("rejected")) for item in items] == [(2, 2), (1, 1)]
    assert [len(items[0].sequences[side][0].completion) for side in ("chosen", "rejected")] == [4, 3]  # context is read


def test_rows_with_and_without_spans_may_be_mixed(tokens: Tokens) -> None:
    rows = [{**pair("w1 w2", "w3"), "chosen_span": [1, 2]}, {**pair("w4 w5", "w6"), "chosen_span": None}]
    items, _ = examples(Dataset.from_list(rows), DPOLoss(), tokens)
    mask = Collator(items, sequences_of(items), tokens).batch(torch.device("cpu")).mask
    assert mask["chosen"].tolist() == [[0, 1, 0], [1, 1, 1]] and mask["rejected"].sum().item() == 4
    assert [item.tokens("chosen") for item in items] == [1, 3]


def test_a_span_outside_its_completion_is_dropped_and_counted(tokens: Tokens) -> None:
    wrong = [(1, 1), (0, 4), (-1, 2), (3, 2)]
    rows = [spanned("w1 w2", "w3", (0, 3), (0, 2)), *(spanned("w1 w2", "w3", span, (0, 1)) for span in wrong)]
    kept, dropped = examples(Dataset.from_list(rows), DPOLoss(), tokens)
    assert (len(kept), dict(dropped)) == (1, {"span outside the completion": 4})


def test_two_segments_of_one_completion_are_a_pair(tokens: Tokens) -> None:
    rows = [spanned("w1 w2", "w1 w2", (0, 1), (1, 3)), spanned("w1 w2", "w1 w2", (0, 1), (0, 1))]
    kept, dropped = examples(Dataset.from_list(rows), DPOLoss(), tokens)
    assert (len(kept), dict(dropped)) == (1, {"identical completions": 1})


def test_rows_of_a_prompt_go_together(tokens: Tokens) -> None:
    rows = [{**pair("w1", "w2"), "prompt_id": name} for name in ("b", "a", "b", "c", "a")]
    items, _ = examples(Dataset.from_list(rows), DPOLoss(), tokens)
    assert grouped(items) == [[0, 2], [1, 4], [3]]
