"""Numbers are worked out by hand in the comments, not by the formulas under test."""

import pytest
import torch
from torch.testing import assert_close

from alignarena.methods.parts.advantages import adaptive_kl, gae, masked, per_token_rewards, whiten

NAN = float("nan")
# two completions: three tokens and one
MASK = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
REWARDS = torch.tensor([[-0.5, 0.0, 1.0], [0.0, NAN, NAN]])
VALUES = torch.tensor([[0.5, 1.0, 0.5], [0.25, NAN, NAN]])


def test_per_token_rewards_pay_kl_everywhere_and_the_score_at_the_last_token():
    old = torch.tensor([[-1.0, -2.0, -1.0], [-1.0, NAN, 7.0]])
    reference = torch.tensor([[-2.0, -2.0, -3.0], [-0.5, 3.0, NAN]])
    rewards = per_token_rewards(torch.tensor([2.0, 1.0]), old, reference, MASK, kl_coef=0.5)
    # old - reference: 1, 0, 2 and -0.5 (negative stays negative); the last tokens get 2 and 1
    assert_close(rewards, torch.tensor([[-0.5, 0.0, 1.0], [1.25, 0.0, 0.0]]))


def test_a_completion_without_tokens_gets_no_reward():
    zeros = torch.zeros(1, 2)
    assert_close(per_token_rewards(torch.tensor([5.0]), zeros, zeros, zeros, kl_coef=0.1), zeros)


def test_gae_by_hand():
    advantages, returns = gae(REWARDS, VALUES, MASK, gamma=1.0, lam=0.5)
    # delta_3 = 1 - .5 = .5; delta_2 = 0 + .5 - 1 = -.5; delta_1 = -.5 + 1 - .5 = 0
    # A_3 = .5; A_2 = -.5 + .5 * .5 = -.25; A_1 = 0 + .5 * -.25 = -.125; the short row: 0 - .25
    assert_close(advantages, torch.tensor([[-0.125, -0.25, 0.5], [-0.25, 0.0, 0.0]]))
    assert_close(returns, torch.tensor([[0.375, 0.75, 1.0], [0.0, 0.0, 0.0]]))


def test_gae_with_discount_by_hand():
    advantages, _ = gae(REWARDS[:1], VALUES[:1], MASK[:1], gamma=0.5, lam=0.5)
    # delta: .5, 0 + .25 - 1 = -.75, -.5 + .5 - .5 = -.5; A_2 = -.75 + .25 * .5, A_1 = -.5 + .25 * -.625
    assert_close(advantages, torch.tensor([[-0.65625, -0.625, 0.5]]))


def test_t8_returns_at_lam_1_are_discounted_rewards_whatever_the_values():
    rewards = torch.tensor([[1.0, 2.0, 4.0, 8.0]])
    for values in (torch.zeros(1, 4), torch.tensor([[3.0, -1.0, 0.5, 9.0]])):
        _, returns = gae(rewards, values, torch.ones(1, 4), gamma=0.5, lam=1.0)
        assert_close(returns, torch.tensor([[4.0, 6.0, 8.0, 8.0]]))  # 8; 4 + 4; 2 + 4; 1 + 3


def test_rows_of_other_lengths_do_not_change_an_advantage():
    together, _ = gae(REWARDS, VALUES, MASK, gamma=1.0, lam=0.95)
    alone, _ = gae(REWARDS[1:, :1], VALUES[1:, :1], MASK[1:, :1], gamma=1.0, lam=0.95)
    assert_close(together[1:, :1], alone)


def test_whiten_by_hand_ignores_padding():
    values = torch.tensor([[1.0, 3.0, 1.0], [3.0, 100.0, NAN]])  # mean 2, std 1
    assert_close(whiten(values, MASK), torch.tensor([[-1.0, 1.0, -1.0], [1.0, 0.0, 0.0]]))


def test_t9_whiten_without_shift_keeps_the_mean_and_has_std_1():
    values = torch.tensor([[1.0, 5.0, 1.0], [5.0, NAN, 0.0]])  # mean 3, std 2
    whitened = whiten(values, MASK, shift_mean=False)
    assert_close(whitened, torch.tensor([[2.0, 4.0, 2.0], [4.0, 0.0, 0.0]]))  # not 1/2 and 5/2


@pytest.mark.parametrize("level", [0.0, 0.3, -1e6])
def test_equal_values_are_not_scaled_into_noise(level):
    whitened = whiten(torch.full((7, 13), level), torch.ones(7, 13))
    assert whitened.abs().max() <= 1e-6 * abs(level)


def test_one_valid_token_and_none():
    mask = torch.tensor([[1.0, 0.0]])
    assert_close(whiten(torch.tensor([[4.0, NAN]]), mask), torch.zeros(1, 2))
    assert_close(whiten(torch.tensor([[4.0, NAN]]), mask, shift_mean=False), torch.tensor([[4.0, 0.0]]))
    assert_close(whiten(torch.tensor([[NAN, NAN]]), torch.zeros(1, 2)), torch.zeros(1, 2))


def test_small_but_real_differences_are_scaled():
    assert_close(whiten(torch.tensor([[1e-3, -1e-3]]), torch.ones(1, 2)), torch.tensor([[1.0, -1.0]]))


@pytest.mark.parametrize(
    ("kl", "n", "expected"),
    [
        (9.0, 500, 0.101),  # error .5 is clipped to .2; .2 * 500 / 10000 = .01
        (6.6, 1000, 0.101),  # error .1
        (6.0, 1000, 0.1),  # on target
        (0.0, 1000, 0.098),  # error -1 is clipped to -.2
    ],
)
def test_adaptive_kl_by_hand(kl, n, expected):
    assert adaptive_kl(0.1, kl, target=6.0, n=n, horizon=10_000) == pytest.approx(expected)


def test_masked_stops_gradients_too():
    values = torch.tensor([[1.0, float("inf")]], requires_grad=True)
    masked(values, torch.tensor([[1.0, 0.0]])).square().sum().backward()
    assert_close(values.grad, torch.tensor([[2.0, 0.0]]))
