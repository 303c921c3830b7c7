"""Advantages within the completions of one prompt: what takes the place of a value model.

B completions; those of one prompt share a number in ``group`` (B,), whatever their order. Groups may differ in size.
"""

from __future__ import annotations

import torch
from torch import Tensor


def group_sums(values: Tensor, group: Tensor) -> Tensor:
    """Return for each row (B,) the sum of ``values`` (B,) over the rows of its group."""
    places = torch.unique(group, return_inverse=True)[1]
    return torch.zeros_like(values).index_add(0, places, values)[places]


def leave_one_out(reward: Tensor, group: Tensor) -> Tensor:
    """Return each reward minus the mean of the others of its group (arXiv:2402.14740).

    Args:
        reward: (B,).
        group: (B,), equal for completions of one prompt.

    Returns:
        Advantages (B,), 0 for a completion that is alone: without another there is no baseline.
    """
    others = group_sums(torch.ones_like(reward), group) - 1
    baseline = (group_sums(reward, group) - reward) / others.clamp(min=1)
    return torch.where(others > 0, reward - baseline, 0.0)


def group_spread(reward: Tensor, group: Tensor) -> Tensor:
    """Return for each row (B,) the standard deviation of its group's rewards, divided by the group's size - 1.

    It is 0 where the rewards are equal up to rounding, and for a completion that is alone.
    """
    count = group_sums(torch.ones_like(reward), group)
    centred = reward - group_sums(reward, group) / count
    spread = (group_sums(centred.square(), group) / (count - 1).clamp(min=1)).sqrt()
    # a spread this small beside the rewards is rounding of equal numbers
    negligible = (8 * torch.finfo(reward.dtype).eps * group_sums(reward.abs(), group)).clamp(min=1e-8)
    return torch.where(spread > negligible, spread, 0.0)


def standardised_in_groups(reward: Tensor, group: Tensor) -> Tensor:
    """Return ``(reward - mean) / std`` within each group (Shao et al., 2024; arXiv:2402.03300).

    Args:
        reward: (B,).
        group: (B,), equal for completions of one prompt.

    Returns:
        Advantages (B,), 0 in a group of equal rewards: they do not say which completion is better.
    """
    spread = group_spread(reward, group)
    centred = reward - group_sums(reward, group) / group_sums(torch.ones_like(reward), group)
    return torch.where(spread > 0, centred / torch.where(spread > 0, spread, 1.0), 0.0)
