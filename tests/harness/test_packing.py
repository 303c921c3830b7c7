"""Completions that share a prompt in one row: the layout, and the cutting into micro-batches."""

import pytest
import torch

from alignarena.harness.packing import micro_batches, pack
from alignarena.harness.tokens import TokenSequence

A, B = (11, 12, 13), (21, 22)
SEQUENCES = [TokenSequence(A, (1, 2)), TokenSequence(B, (3,)), TokenSequence(A, (4, 5, 6))]


def test_a_packed_row_holds_its_prompt_once() -> None:
    packed = pack(SEQUENCES)
    assert packed.input_ids.tolist() == [[11, 12, 13, 1, 2, 4, 5, 6], [21, 22, 3, 0, 0, 0, 0, 0]]
    assert packed.position_ids[0].tolist() == [0, 1, 2, 3, 4, 3, 4, 5]
    assert packed.target.tolist() == [1, 2, 3, 4, 5, 6]
    assert packed.source.tolist() == [2, 3, 8 + 1, 2, 5, 6]  # the first token of both is predicted by the prompt's end
    assert packed.last.tolist() == [4, 8 + 2, 7]
    assert (packed.lengths, packed.tokens) == ((2, 1, 3), 11)


def test_a_completion_sees_the_prompt_and_itself_only() -> None:
    seen = pack(SEQUENCES).attention_mask[0, 0]
    assert seen[6].tolist() == [True, True, True, False, False, True, True, False]
    assert seen[4].tolist() == [True, True, True, True, True, False, False, False]


def test_without_sharing_rows_are_plain_and_causal() -> None:
    packed = pack(SEQUENCES, share=False)
    assert packed.attention_mask is None
    assert packed.input_ids.shape == (3, 6)
    assert packed.tokens == 5 + 3 + 6


@pytest.mark.parametrize("share", [True, False])
def test_micro_batches_hold_every_group_once_within_the_limit(share: bool) -> None:
    noise = torch.Generator().manual_seed(0)
    groups = []
    for g in range(40):
        lengths = torch.randint(1, 12, (int(torch.randint(1, 5, (), generator=noise)) + 1,), generator=noise).tolist()
        prompt = tuple(range(lengths[0]))
        groups.append([TokenSequence(prompt, (g, k, *range(n))) for k, n in enumerate(lengths[1:])])
    cut = micro_batches(groups, 64, share)
    assert sorted(g for part in cut for g in part) == list(range(40))
    assert len(cut) < 40
    for part in cut:
        packed = pack([sequence for g in part for sequence in groups[g]], share)
        assert packed.input_ids.numel() <= 64 or len(part) == 1


def test_a_group_longer_than_the_limit_stands_alone() -> None:
    groups = [[TokenSequence(A, (1,) * 50)], [TokenSequence(A, (1,))], [TokenSequence(B, (2,))]]
    assert micro_batches(groups, 10) == [[0], [1, 2]]
