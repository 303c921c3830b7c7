"""Completions that share a prompt, rows without padding: the layout, who sees whom, and the micro-batches."""

import pytest
import torch
from torch.nn.attention.flex_attention import create_mask

from alignarena.harness.blocks import PackedRow
from alignarena.harness.flex import mask_mod
from alignarena.harness.packing import Form, micro_batches, pack
from alignarena.harness.tokens import TokenSequence

A, B = (11, 12, 13), (21, 22)
SEQUENCES = [TokenSequence(A, (1, 2)), TokenSequence(B, (3,)), TokenSequence(A, (4, 5, 6))]


def test_a_packed_row_holds_its_prompt_once_and_the_next_follows_without_padding() -> None:
    packed = pack(SEQUENCES)
    assert packed.input_ids.tolist() == [[11, 12, 13, 1, 2, 4, 5, 6, 21, 22, 3]]
    assert packed.position_ids.tolist() == [[0, 1, 2, 3, 4, 3, 4, 5, 0, 1, 2]]
    assert packed.target.tolist() == [1, 2, 3, 4, 5, 6]
    assert packed.source.tolist() == [2, 3, 8 + 1, 2, 5, 6]  # the first token of both is predicted by the prompt's end
    assert packed.last.tolist() == [4, 8 + 2, 7]
    assert (packed.lengths, packed.tokens) == ((2, 1, 3), 11)
    assert packed.attention["layout"].rows == (PackedRow(0, 3, (2, 3)), PackedRow(8, 2, (1,)))


def test_what_all_prompts_begin_with_stands_once_before_the_rows() -> None:
    same = tuple(range(100, 120))
    packed = pack([TokenSequence(same + each.prompt, each.completion) for each in SEQUENCES])
    assert packed.input_ids.tolist() == [[*same, 11, 12, 13, 1, 2, 4, 5, 6, 21, 22, 3]]
    assert packed.position_ids.tolist() == [[*range(20), 20, 21, 22, 23, 24, 23, 24, 25, 20, 21, 22]]
    assert packed.source.tolist() == [22, 23, 28 + 1, 22, 25, 26]
    assert packed.last.tolist() == [24, 30, 27]
    assert packed.tokens == 11 + 2 * 20
    rows = PackedRow(0, 20, (0,)), PackedRow(20, 3, (2, 3), 20), PackedRow(28, 2, (1,), 20)
    assert packed.attention["layout"].rows == rows


def test_a_prompt_that_is_all_prefix_keeps_its_last_token() -> None:
    same = tuple(range(30))
    packed = pack([TokenSequence(same, (1,)), TokenSequence((*same, 50), (2,))])
    assert packed.input_ids.tolist() == [[*range(29), 29, 1, 29, 50, 2]]
    assert packed.source.tolist() == [29, 32]


@pytest.mark.parametrize("length", [15, 16])
def test_a_prefix_is_shared_only_where_that_saves_enough(length: int) -> None:
    same = tuple(range(length))
    packed = pack([TokenSequence((*same, 50), (1,)), TokenSequence((*same, 60), (2,))])
    assert packed.input_ids.numel() == 2 * (length + 2) - (length if length == 16 else 0)


def test_flex_sees_the_same_row_its_prompt_and_the_same_completion() -> None:
    rule = mask_mod([PackedRow(0, 3, (2, 3)), PackedRow(8, 2, (1,))], "cpu")
    seen = create_mask(rule, 1, 1, 11, 11, "cpu")[0, 0]
    expected = torch.ones(11, 11).tril().bool()
    expected[5:8, 3:5] = False  # the second completion does not see the first
    expected[8:, :8] = False  # nor one row another
    assert torch.equal(seen, expected)


def test_the_plain_form_is_one_sequence_a_row_padded_on_the_right() -> None:
    packed = pack(SEQUENCES, "plain")
    assert packed.input_ids.tolist() == [[11, 12, 13, 1, 2, 0], [21, 22, 3, 0, 0, 0], [11, 12, 13, 4, 5, 6]]
    assert packed.source.tolist() == [2, 3, 6 + 1, 12 + 2, 12 + 3, 12 + 4]
    assert packed.last.tolist() == [4, 6 + 2, 12 + 5]
    assert packed.attention == {}
    assert packed.tokens == 5 + 3 + 6


@pytest.mark.parametrize("form", ["blocks", "plain"])
def test_micro_batches_hold_every_group_once_within_the_limit(form: Form) -> None:
    noise = torch.Generator().manual_seed(0)
    groups = []
    for g in range(40):
        lengths = torch.randint(1, 12, (int(torch.randint(1, 5, (), generator=noise)) + 1,), generator=noise).tolist()
        prompt = tuple(range(lengths[0]))
        groups.append([TokenSequence(prompt, (g, k, *range(n))) for k, n in enumerate(lengths[1:])])
    cut = micro_batches(groups, 64, form)
    assert sorted(g for part in cut for g in part) == list(range(40))
    assert len(cut) < 40
    for part in cut:
        sequences = [sequence for g in part for sequence in groups[g]]
        assert pack(sequences, form).input_ids.numel() <= 64 or len(part) == 1


def test_a_group_longer_than_the_limit_stands_alone() -> None:
    groups = [[TokenSequence(A, (1,) * 50)], [TokenSequence(A, (1,))], [TokenSequence(B, (2,))]]
    assert micro_batches(groups, 10) == [[0], [1, 2]]


def test_what_groups_share_is_counted_once_and_groups_of_a_prompt_go_together() -> None:
    one, other = (TokenSequence(prompt, (7, 8)) for prompt in (A, B))
    fresh = TokenSequence(A, (9,))
    groups = [[one], [other], [one], [other], [one, fresh]]
    assert micro_batches(groups, len(A) + 2 + 1) == [[4, 0, 2], [1, 3]]
    assert micro_batches(groups, len(A) + 2) == [[4], [0, 2], [1, 3]]
    assert micro_batches(groups, 2 * (len(A) + 2), "plain") == [[0, 2, 4], [1, 3]]
