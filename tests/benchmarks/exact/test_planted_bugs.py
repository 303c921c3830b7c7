"""The laboratory must be able to fail: each bug, planted in the code that users run, pushes a method below its bar.

Under ``-s`` each test prints a row of the table in docs/exact.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from alignarena.core.contract import Batch
from alignarena.harness import backbone
from alignarena.harness.batches import Collator
from alignarena.harness.packing import Pack
from alignarena.harness.passes import References
from alignarena.harness.phase import POLICY
from alignarena.harness.tokens import Ids, Tokens
from alignarena.harness.trainer import Fit
from alignarena.methods.parts import losses, policy_gradient
from alignarena.methods.parts.losses import DPOLoss

LEAST_EFFICIENCY, MOST_ERROR = 0.95, 0.05  # the bars: J-efficiency; learning error by the target's KL
Falls = Callable[..., None]


@contextmanager
def planted(owner: Any, name: str, bug: Callable[..., Any]) -> Iterator[None]:
    """Put a function in the place of another, which it is given first."""
    original = getattr(owner, name)

    def instead(*args: Any, **kwargs: Any) -> Any:
        return bug(original, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, instead)
        yield


@pytest.fixture
def falls(small_world: Any, request: pytest.FixtureRequest) -> Falls:
    """Asserts that a method clears its bar as it is in the repository, and does not with a bug."""

    def check(
        what: str, name: str, owner: Any, attribute: str, bug: Callable[..., Any], by: str = "efficiency"
    ) -> None:
        clean = getattr(small_world.clean(name), by)
        with planted(owner, attribute, bug):
            broken = getattr(small_world.run(name), by)
        print(f"\n| {what} | {name} | {by} | {clean:.3f} | {broken:.3f} | `{request.node.name}` |")
        if by == "efficiency":
            assert broken < LEAST_EFFICIENCY <= clean
        else:
            assert clean <= MOST_ERROR < broken

    return check


# -- log-probs and masks ----------------------------------------------------------------------------------------------


def without_first_token(original: Any, collator: Collator, device: torch.device) -> Batch:
    batch: Batch = original(collator, device)
    for mask in batch.mask.values():
        mask[:, 0] = 0
    return batch


def at_own_position(original: Any, *args: Any) -> Pack:
    """Read each token's log-prob where the token stands instead of one before."""
    packed: Pack = original(*args)
    parts = zip(packed.source.split(packed.lengths), packed.last, strict=True)
    return replace(packed, source=torch.cat([torch.cat([part[1:], last[None]]) for part, last in parts]))


def of_ones(original: Any, collator: Collator, device: torch.device) -> Batch:
    batch: Batch = original(collator, device)
    return replace(batch, mask={key: torch.ones_like(mask) for key, mask in batch.mask.items()})


def into_the_next_sequence(original: Any, collator: Collator, items: Any, sequences: Any, tokens: Tokens) -> None:
    """Count padding, and leave on it what stands there in the flat tensor: the tokens of the next sequence."""
    original(collator, items, sequences, tokens)
    sizes = torch.tensor([len(sequence.completion) for sequence in sequences])
    flat = (torch.cumsum(sizes, 0) - sizes)[:, None] + torch.arange(int(sizes.max()))
    collator._flat = flat.clamp(max=int(sizes.sum()) - 1)
    collator._inside = torch.ones_like(collator._inside)


def padded_with_end(original: Any, tokens: Tokens, row: Any, column: str) -> list[Ids]:
    """Let the end stand for padding and count all of it, as where the padding token is the end's."""
    width = tokens.config.max_new_tokens
    return [ids + (tokens.eos_id,) * (width - len(ids)) for ids in original(tokens, row, column)]


def without_end(original: Any, tokens: Tokens, row: Any, column: str) -> list[Ids]:
    return [ids[:-1] if tokens.finished(ids) else ids for ids in original(tokens, row, column)]


def test_mask_off_by_one(falls: Falls) -> None:
    falls("mask drops the first token", "dpo", Collator, "batch", without_first_token)


@pytest.mark.slow
def test_log_probs_off_by_one(falls: Falls) -> None:
    falls("log-probs shifted by one position", "dpo", backbone, "pack", at_own_position)


@pytest.mark.slow
def test_padding_unmasked(falls: Falls) -> None:
    falls("padding is not masked", "dpo", Collator, "__init__", into_the_next_sequence)


def test_a_mask_of_ones_alone_changes_nothing(small_world: Any) -> None:
    # the collator fills padding with zeros, so the log-ratio of padding is 0 whatever the mask says
    clean = small_world.run("dpo", phases=10)
    with planted(Collator, "batch", of_ones):
        np.testing.assert_allclose(small_world.run("dpo", phases=10).log_policy, clean.log_policy, atol=1e-9)


@pytest.mark.slow
def test_padding_is_the_end(falls: Falls) -> None:
    falls("padding is the end and counted", "ppo", Tokens, "completions_of", padded_with_end)


@pytest.mark.slow
def test_end_missing(falls: Falls) -> None:
    falls("end of completions not scored", "dpo", Tokens, "completions_of", without_end)


@pytest.mark.slow
def test_end_missing_in_rejection_sampling(falls: Falls) -> None:
    falls("end of completions not trained", "rejection_sampling", Tokens, "completions_of", without_end, "error")


# -- losses -----------------------------------------------------------------------------------------------------------


def swapped(original: Any, *args: Any) -> dict[str, Tensor]:
    ratios = original(*args)
    return {"chosen": ratios["rejected"], "rejected": ratios["chosen"]}


def of_the_moving_policy(original: Any, references: References, variant: str, *args: Any) -> Any:
    return original(references, POLICY, *args)


def with_twice_the_beta(original: Any, loss: DPOLoss, *args: Any) -> Any:
    return original(replace(loss, beta=2 * loss.beta), *args)


def first_half(original: Any, fit: Fit, *args: Any) -> Iterator[Any]:
    """Stop a fit of one step a phase in the middle of its schedule."""
    return islice(original(fit, *args), fit.experience.phases // 2)


def test_sign_of_the_margin(falls: Falls) -> None:
    falls("sign of the margin", "dpo", losses, "logratios", swapped)


def test_reference_not_frozen(falls: Falls) -> None:
    falls("reference not frozen", "dpo", References, "logps", of_the_moving_policy)


@pytest.mark.slow
def test_reference_not_frozen_in_ppo(falls: Falls) -> None:
    falls("reference not frozen", "ppo", References, "logps", of_the_moving_policy)


@pytest.mark.slow
def test_beta_doubled(falls: Falls) -> None:
    falls("beta doubled", "dpo", DPOLoss, "__call__", with_twice_the_beta)


def test_half_the_steps(falls: Falls) -> None:
    falls("half the steps", "dpo", Fit, "_phases", first_half)


# -- policy gradients -------------------------------------------------------------------------------------------------


def against_the_penalty(original: Any, *args: Any) -> Tensor:
    *others, kl_coef = args
    return original(*others, -kl_coef)  # type: ignore[no-any-return]


def of_the_other_sign(original: Any, *args: Any) -> tuple[Tensor, Tensor]:
    advantages, returns = original(*args)
    return -advantages, returns


def one_token_late(original: Any, *args: Any) -> tuple[Tensor, Tensor]:
    """Train the value before each token on the return from the token after it."""
    advantages, returns = original(*args)
    return advantages, torch.cat([returns[:, 1:], torch.zeros_like(returns[:, :1])], 1)


def test_sign_of_the_kl_penalty(falls: Falls) -> None:
    falls("sign of the KL penalty", "ppo", policy_gradient, "per_token_rewards", against_the_penalty)


def test_sign_of_the_advantages(falls: Falls) -> None:
    falls("sign of the advantages", "ppo", policy_gradient, "gae", of_the_other_sign)


@pytest.mark.slow
def test_value_targets_shifted(falls: Falls) -> None:
    falls("value targets shifted by a token", "ppo", policy_gradient, "gae", one_token_late)
