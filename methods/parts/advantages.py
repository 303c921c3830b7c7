"""Advantages for policy gradients: rewards, GAE, whitening, adaptive KL, explained variance.

Everywhere (B, T) is B completions padded to T tokens, and ``mask`` is 1 on completion tokens and 0 on padding.
Nothing on padding is ever read, so it may hold anything.
"""

from __future__ import annotations

import torch
from torch import Tensor


def masked(values: Tensor, mask: Tensor) -> Tensor:
    """Return the values with padding set to 0, also where padding is infinite or not a number."""
    return values.masked_fill(mask == 0, 0.0)


def per_token_rewards(score: Tensor, old: Tensor, reference: Tensor, mask: Tensor, kl_coef: float) -> Tensor:
    """Pay the KL penalty at every token and the score at the last one (Ziegler et al., 2019; arXiv:1909.08593, eq. 2).

    The penalty uses the log-probs at sampling and the estimator k1 = ``old - reference``: unbiased, and negative on
    some tokens. Clamping it at 0 would charge a policy that never left the reference model.

    Args:
        score: (B,), one a completion.
        old: (B, T), log-probs of the policy when it sampled, in nats.
        reference: (B, T), log-probs of the reference model, in nats.
        mask: (B, T).
        kl_coef: Reward lost per nat.

    Returns:
        Rewards (B, T), 0 on padding.
    """
    is_last = mask * (mask.cumsum(1) == mask.sum(1, keepdim=True))
    return -kl_coef * masked(old - reference, mask) + is_last * score[:, None]


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Estimate advantages (Schulman et al., 2016; arXiv:1506.02438, eq. 16).

    ``delta_t = r_t + gamma V_(t+1) - V_t`` and ``A_t = delta_t + gamma lam A_(t+1)``, with V = A = 0 after the last
    token: the completion is over there.

    Args:
        rewards: (B, T).
        values: (B, T), before each token.
        mask: (B, T), padding on the right.
        gamma: Discount a token.
        lam: 0 is one-step (biased), 1 is Monte Carlo (high variance).

    Returns:
        Advantages and returns (advantages + values), both (B, T) and 0 on padding.
    """
    rewards, values = masked(rewards, mask), masked(values, mask)
    advantage = next_value = torch.zeros_like(rewards[:, 0])
    backwards = []
    for t in reversed(range(rewards.shape[1])):
        advantage = rewards[:, t] + gamma * next_value - values[:, t] + gamma * lam * advantage
        next_value = values[:, t]
        backwards.append(advantage)
    advantages = torch.stack(backwards[::-1], dim=1)
    return advantages, advantages + values


def whiten(values: Tensor, mask: Tensor, shift_mean: bool = True) -> Tensor:
    """Scale the valid tokens of a batch to standard deviation 1 (population), and to mean 0 if ``shift_mean``.

    With ``shift_mean=False`` the mean stays as it was (openai/lm-human-preferences ``whiten``): it is
    ``(x - mean) / std + mean``, not ``x / std``. Values that are all equal, or a single one, are not scaled.

    Args:
        values: (B, T).
        mask: (B, T).
        shift_mean: Whether the mean becomes 0.

    Returns:
        Whitened values (B, T), 0 on padding.
    """
    values = masked(values, mask)
    count = mask.sum().clamp(min=1)
    mean = values.sum() / count
    centred = masked(values - mean, mask)
    std = (centred.square().sum() / count).sqrt()
    # a spread this small beside the values is rounding of equal numbers: scaling it up would train on noise
    negligible = torch.clamp(8 * torch.finfo(values.dtype).eps * values.abs().max(), min=1e-8)
    whitened = centred / torch.where(std > negligible, std, torch.ones_like(std))
    return whitened if shift_mean else masked(whitened + mean, mask)


def adaptive_kl(kl_coef: float, kl: float, target: float, n: int, horizon: int) -> float:
    """Move the KL coefficient toward a target KL (Ziegler et al., 2019; arXiv:1909.08593, section 2.2).

    Args:
        kl_coef: The coefficient that was used.
        kl: Measured KL to the reference model, nats a completion.
        target: Wanted KL, nats a completion.
        n: Completions it was measured on.
        horizon: Completions over which the coefficient may change by 20 %.

    Returns:
        The coefficient to use next.
    """
    error = min(max(kl / target - 1.0, -0.2), 0.2)
    return kl_coef * (1.0 + error * n / horizon)


def explained_variance(returns: Tensor, values: Tensor, mask: Tensor) -> float:
    """Return the share of the returns' variance over the valid tokens (B, T) that values explain; below 0, none.

    Returns that are all equal have none to explain: 0.
    """
    count = mask.sum()
    error, centred = masked(returns - values, mask), masked(returns - returns.sum() / count, mask)
    spread = centred.square().sum()
    left = masked(error - error.sum() / count, mask).square().sum()
    return float(1 - left / spread) if float(spread) > 1e-12 else 0.0
