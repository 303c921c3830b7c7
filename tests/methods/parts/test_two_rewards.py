"""Llama 2's reward: graded margins, two reward models that are fitted and centred, whitening over a phase."""

import math
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from alignarena.benchmarks.start import Lazily
from alignarena.core.contract import Batch
from alignarena.core.feedback import Piecewise, Standardised
from alignarena.methods.parts.policy_gradient import PPOLoss
from alignarena.methods.parts.reward_losses import KWiseRewardLoss, PairwiseRewardLoss
from alignarena.methods.parts.two_rewards import TwoRewardModels, WhitenedPPOLoss, axes_of
from alignarena.paper_lab import PaperLab, paper_task

SMALL = [0.0, 1 / 3, 2 / 3, 1.0]  # negligibly, slightly, better, significantly
# softplus(m - .5) for the small table and the large one, three times as large
LOSSES = {
    0.0: [0.474077, 0.474077, 0.474077, 0.474077],
    1.0: [0.474077, 0.613282, 0.779949, 0.974077],
    3.0: [0.474077, 0.974077, 1.701413, 2.578890],
}


def graded(margin_scale: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The losses of four pairs, one of each grade, whose scores differ by .5, and their gradients by both scores."""
    scores = torch.tensor([[0.2, -0.3]] * 4, dtype=torch.float64, requires_grad=True)
    columns = {"ranks": torch.tensor([[1.0, 2.0]] * 4), "margins": torch.tensor(SMALL, dtype=torch.float64)[:, None]}
    batch = Batch(mask={"completions": torch.ones(4, 2, 1)}, columns=columns)
    loss, _ = KWiseRewardLoss(margin_scale)({"completions": scores}, batch)
    loss.sum().backward()
    assert scores.grad is not None
    return loss.detach(), scores.grad[:, 0], scores.grad[:, 1]


@pytest.mark.parametrize("margin_scale", LOSSES)
def test_t3_the_tables_of_margins_by_hand(margin_scale: float) -> None:
    loss, _, _ = graded(margin_scale)
    assert loss.tolist() == pytest.approx(LOSSES[margin_scale], abs=2e-6)


def test_t3_without_a_margin_the_loss_is_that_of_bradley_and_terry() -> None:
    pair = {"chosen": torch.tensor([0.2]), "rejected": torch.tensor([-0.3])}
    batch = Batch(mask={}, columns={"margin": torch.zeros(1)})
    plain, _ = PairwiseRewardLoss()(pair, batch)
    margin, _ = PairwiseRewardLoss(margin=True)(pair, batch)
    assert_close(margin, plain)
    assert graded(0.0)[0].tolist() == pytest.approx([math.log1p(math.exp(-0.5))] * 4, abs=1e-12)
    assert graded(1.0)[0][0] == graded(0.0)[0][0]


@pytest.mark.parametrize("margin_scale", [1.0, 3.0])
def test_t3_a_larger_margin_costs_more_and_pushes_harder_the_same_way(margin_scale: float) -> None:
    loss, better, worse = graded(margin_scale)
    assert (loss.diff() > 0).all()
    assert (better < 0).all() and (worse > 0).all()  # as without a margin
    assert (better.diff() < 0).all() and (worse.diff() > 0).all()
    assert_close(better, -worse)


def test_a_reward_of_two_axes_is_centred_and_keeps_its_unit() -> None:
    task = paper_task()
    reward = TwoRewardModels().fit(task, PaperLab())
    assert isinstance(reward, Piecewise)
    for one in (reward.helpful, reward.harmless):
        assert isinstance(one, Standardised) and one.std == 1.0
    assert reward.helpful != reward.harmless


def test_where_there_is_one_axis_one_reward_model_serves() -> None:
    task = paper_task()
    alone = replace(task, preferences={"overall": task.preferences["overall"]})
    reward = TwoRewardModels().fit(alone, PaperLab())
    assert isinstance(reward, Standardised) and reward.std != 1.0


def test_asking_for_the_axes_buys_no_preferences() -> None:
    def bought() -> None:
        pytest.fail("preferences were read")

    both = Lazily(dict.fromkeys(("overall", "helpful", "harmless"), bought))  # type: ignore[arg-type]
    assert axes_of(both) == ("helpful", "harmless") and "helpful" in both and "kind" not in both
    assert axes_of(Lazily({"overall": bought, "helpful": bought})) == ("overall",)  # type: ignore[dict-item]


def phase(scores: list[float]) -> Batch:
    """Completions of two tokens on the reference model, valued 0; the last one does not finish."""
    zeros = torch.zeros(len(scores), 2, dtype=torch.float64)
    return Batch(
        mask={"completion": zeros + 1},
        finished={"completion": torch.tensor([True] * (len(scores) - 1) + [False])},
        old={"completion": zeros},
        reference={"completion": zeros},
        old_values={"completion": zeros},
        columns={"score": torch.tensor(scores, dtype=torch.float64)},
    )


PLAIN = WhitenedPPOLoss(lam=1.0, whiten_advantages=False, missing_eos_penalty=0.5)


def test_scores_are_whitened_over_a_phase_by_hand() -> None:
    # mean 3, deviation sqrt((4 + 1 + 9) / 3) = 2.160247; the penalty comes after
    state: dict[str, float] = {}
    prepared = PLAIN.prepare(phase([1.0, 2.0, 6.0]), state)
    expected = [-2 / 2.1602469, -1 / 2.1602469, 3 / 2.1602469 - 0.5]
    assert_close(prepared["advantages"], torch.tensor([[one] * 2 for one in expected], dtype=torch.float64))
    assert state["objective/scores"] == 3.0
    assert state["objective/rlhf_reward"] == pytest.approx(-0.5 / 3)


def test_no_scale_or_shift_of_the_scores_is_left() -> None:
    plain, moved = (PLAIN.prepare(phase(scores), {}) for scores in ([1.0, 2.0, 6.0], [103.0, 106.0, 118.0]))
    assert_close(moved, plain)


@pytest.mark.parametrize("scores", [[0.1] * 5, [3.0]])
def test_scores_without_spread_are_not_scaled(scores: list[float]) -> None:
    prepared = replace(PLAIN, missing_eos_penalty=0.0).prepare(phase(scores), {})
    assert_close(prepared["advantages"], torch.zeros(len(scores), 2, dtype=torch.float64), atol=1e-12, rtol=0)


def test_what_is_not_whitened_is_ppo() -> None:
    batch, raw = phase([-1.0, 1.0]), {"lam": 0.9, "kl_coef": 0.3}  # whitened already
    assert_close(WhitenedPPOLoss(**raw).prepare(batch, {}), PPOLoss(**raw).prepare(batch, {}))  # type: ignore[arg-type]
