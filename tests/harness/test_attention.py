"""Block attention against scaled_dot_product_attention under the mask that it stands for, forward and backward."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.testing import assert_close

from alignarena.harness import attention, blocks
from alignarena.harness.attention import PackedLayout
from alignarena.harness.blocks import PackedRow, with_prefix

ROWS = {
    "one causal row": [(9, (4,))],
    "ragged rows": [(3, (2, 5, 1)), (7, (4,)), (1, (6, 6)), (12, (3, 2))],
    "longer than a block": [(40, (9, 30)), (5, (70,))],
    "many short ones": [(6, (4, 2, 3) * 9), (2, (1,) * 40)],
}


def packed(spec: list[tuple[int, tuple[int, ...]]], prefix: int = 0) -> list[PackedRow]:
    return with_prefix(prefix, [(prefix + prompt, completions) for prompt, completions in spec])


def size_of(rows: list[PackedRow]) -> int:
    return sum(row.prompt + sum(row.completions) for row in rows)


def mask(rows: list[PackedRow], window: int | None) -> torch.Tensor:
    """Return who sees whom, (N, N), token by token."""
    who = []
    for r, row in enumerate(rows):
        first = "prefix" if r == 0 and row.completions == (0,) else r
        who += [(first, 0, row.prefix + p) for p in range(row.prompt)]
        who += [(r, s + 1, row.prefix + row.prompt + p) for s, n in enumerate(row.completions) for p in range(n)]
    near = len(who) if window is None else window
    return torch.tensor(
        [[b[0] in ("prefix", a[0]) and b[1] in (0, a[1]) and 0 <= a[2] - b[2] < near for b in who] for a in who]
    )


def by_heads(
    layout: PackedLayout, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: int | None
) -> torch.Tensor:
    """Return outputs (1, N, H, D) of queries (1, H, N, D), keys and values (1, KV, N, D)."""
    q, k, v = (x[0].transpose(0, 1) for x in (q, k, v))
    return layout.attend(0, q, k, v, 0.3, window)[None]


@pytest.mark.parametrize("kept", [0, 2**20])
@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("prefix", [0, 1, 21])
@pytest.mark.parametrize("name", ROWS)
def test_outputs_and_gradients_are_those_of_the_mask(
    name: str, prefix: int, window: int | None, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "_QUERIES", 16)
    monkeypatch.setattr(attention, "_KEPT", kept)
    rows = packed(ROWS[name], prefix)
    seen, size = mask(rows, window), size_of(rows)
    noise = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, heads, size, 8, generator=noise).requires_grad_() for heads in (6, 2, 2))
    above = torch.randn(1, size, 6, 8, generator=noise)
    found = by_heads(PackedLayout(rows), q, k, v, window)
    slopes = torch.autograd.grad((found * above).sum(), (q, k, v))
    expected = scaled_dot_product_attention(
        q, k.repeat_interleave(3, 1), v.repeat_interleave(3, 1), seen, scale=0.3
    ).transpose(1, 2)
    assert_close(found, expected, atol=1e-5, rtol=1e-5)
    for one, other in zip(slopes, torch.autograd.grad((expected * above).sum(), (q, k, v)), strict=True):
        assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_no_token_of_another_row_or_completion_moves_an_output() -> None:
    rows = packed(ROWS["ragged rows"])
    size = sum(row.prompt + sum(row.completions) for row in rows)
    q, k, v = (torch.randn(1, heads, size, 8) for heads in (6, 2, 2))
    before = by_heads(PackedLayout(rows), q, k, v, None)
    for blinded in (k, v):
        blinded[:, :, 3:5] *= 100  # the first completion of the first row
    after = by_heads(PackedLayout(rows), q, k, v, None)
    unmoved = [*range(3), *range(rows[1].start, size)]
    assert torch.equal(before[0, unmoved], after[0, unmoved])


def test_blocks_waste_little_and_stay_small() -> None:
    layout = PackedLayout(packed([(n, (n // 2, n // 3)) for n in range(20, 400, 13)]))
    needed = sum(int(b.seen(None).sum()) for b in layout.buckets)
    assert needed > 0.4 * layout.pairs  # half of a causal square is masked anyway
    assert max(b.pairs for b in layout.buckets) <= blocks._QUERIES * 700


def test_short_completions_copy_the_keys_of_their_prompt_less_often() -> None:
    short = PackedLayout(packed([(6, (4,) * 40)]))
    assert sum(len(b.k) for b in short.buckets) == 7  # 160 tokens, cut where a multiple of isqrt(100 * 6) + 1 is passed
    long = PackedLayout(packed([(6, (100,) * 5)]))
    assert sum(len(b.k) for b in long.buckets) == 5
