"""Prompts held out of a fixed set, and the loss on them: one stopping rule for every fit."""

from __future__ import annotations

import torch

from alignarena.core.errors import BadInput
from alignarena.core.seeds import generator
from alignarena.harness.batches import Example, grouped
from alignarena.harness.phase import Phase


def hold_out(items: list[Example], share: float, seed: int) -> tuple[list[Example], list[Example]]:
    """Cut rows by their prompts.

    Args:
        items: The rows of a fixed set.
        share: Of the prompts, to be held out; 0: none.
        seed: Of the fit, and all that the choice of prompts depends on beside their number.

    Returns:
        The rows to train on and those held out, each in the order given.

    Raises:
        BadInput: No prompt is left on one side.
    """
    if share == 0:
        return items, []
    groups = grouped(items)
    count = held_out_prompts(len(groups), share)
    chosen = generator(seed, "validation").permutation(len(groups))[:count]
    held = {i for group in chosen for i in groups[group]}
    return [one for i, one in enumerate(items) if i not in held], [items[i] for i in sorted(held)]


def held_out_prompts(prompts: int, share: float) -> int:
    """Return how many of some prompts a share of them is; errors as those of :func:`hold_out`."""
    count = round(share * prompts)
    if share and not 0 < count < prompts:
        raise BadInput(
            f"schedule.validation_share: {share:g} of {prompts} prompts holds out {count}; at least one must "
            "be held out and one trained on: set it nearer to 0.5, give more prompts, or set it to 0 for no validation"
        )
    return count


@torch.no_grad()
def validation_loss(phase: Phase) -> float:
    """Return the mean loss over all rows of a phase, laid out as in its first epoch; charge the forward passes."""
    fit, steps = phase.fit, range(phase.steps_per_epoch)
    micro = [part for step in steps for part in phase.micro(step)]
    means, tokens = phase.means(micro, sum(map(phase.divisor, steps)), backward=False)
    fit.meter.add(scored_tokens=tokens, flops=2.0 * fit.backbone.parameters * tokens)
    fit.stage.advance(0, tokens)
    return means["loss"]
