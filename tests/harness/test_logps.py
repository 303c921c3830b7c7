"""Log-probs in chunks of tokens, with a gradient of their own."""

import pytest
import torch
from torch.testing import assert_close

from alignarena.harness import logps
from alignarena.harness.logps import logits_logps, token_logps


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("count", [1, 4, 5, 31])  # chunks of 5, by 2 rows: below, at and across the boundaries
def test_equal_to_log_softmax_with_its_gradient(
    monkeypatch: pytest.MonkeyPatch, bias: bool, count: int, frozen: bool
) -> None:
    monkeypatch.setattr(logps, "CHUNK", 5)
    monkeypatch.setattr(logps, "_LOGITS", 1)
    monkeypatch.setattr(logps, "_IN_CACHE", 60)
    noise = torch.Generator().manual_seed(count)
    head = torch.nn.Linear(8, 30, bias=bias).requires_grad_(not frozen)
    hidden = (3 * torch.randn(count, 8, generator=noise)).requires_grad_()
    target = torch.randint(0, 30, (count,), generator=noise)
    weight = torch.randn(count, generator=noise)
    expected = logits_logps(head(hidden), target)
    learns = [hidden] if frozen else [hidden, *head.parameters()]
    slopes = torch.autograd.grad((expected * weight).sum(), learns)
    found = token_logps(hidden, head, target)
    assert_close(found, expected, atol=1e-5, rtol=1e-5)
    for one, other in zip(torch.autograd.grad((found * weight).sum(), learns), slopes, strict=True):
        assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_gradient_agrees_with_finite_differences() -> None:
    torch.manual_seed(0)
    head = torch.nn.Linear(4, 7, bias=False).requires_grad_(False)
    hidden, target = torch.randn(3, 4, requires_grad=True), torch.tensor([0, 3, 6])
    (slope,) = torch.autograd.grad(token_logps(hidden, head, target).sum(), hidden)
    for place in [(0, 0), (1, 2), (2, 3)]:
        step = torch.zeros(3, 4)
        step[place] = 1e-2
        above, below = (token_logps(hidden.detach() + sign * step, head, target).sum() for sign in (1, -1))
        assert float(slope[place]) == pytest.approx(float(above - below) / 2e-2, abs=2e-3)


def test_without_gradient_nothing_is_kept() -> None:
    head = torch.nn.Linear(4, 7).requires_grad_(False)
    found = token_logps(torch.randn(3, 4), head, torch.tensor([0, 3, 6]))
    assert not found.requires_grad
    assert (found < 0).all()


@pytest.mark.parametrize(("vocabulary", "most"), [(8, 12), (2, 50)])
def test_a_chunk_is_bounded_by_tokens_or_by_logits(
    vocabulary: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logps, "CHUNK", 12)
    monkeypatch.setattr(logps, "_LOGITS", 100)
    rows: list[int] = []
    chosen = logps._chosen
    monkeypatch.setattr(logps, "_chosen", lambda logits, *rest, **how: (rows.append(len(logits)),
                                                                        chosen(logits, *rest, **how))[1])  # fmt: skip
    head = torch.nn.Linear(4, vocabulary, bias=False).requires_grad_(False)
    token_logps(torch.randn(120, 4), head, torch.zeros(120, dtype=torch.long))
    assert max(rows) == most and sum(rows) == 120
