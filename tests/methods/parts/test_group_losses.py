"""RLOO, GRPO and online DPO; numbers are worked out by hand."""

import math
from dataclasses import replace

import pytest
import torch
from loss_batches import NLS, close, pair_batch
from torch.testing import assert_close

from alignarena.core.contract import Batch
from alignarena.methods.parts.group_losses import GRPOLoss, OnlineDPOLoss, RLOOLoss
from alignarena.methods.parts.groups import group_spread, leave_one_out, standardised_in_groups
from alignarena.methods.parts.losses import DPOLoss

NAN = float("nan")
GROUP = torch.tensor([1.0, 1.0, 1.0, 2.0, 2.0])


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


def rollouts(score=(3.0, 1.0, 2.0, 5.0, 1.0), finished=(True, True, True, True, False)):
    """Three completions of a prompt and two of another; KL 1, 0, -2, 2 and 0 nats."""
    mask = torch.tensor([[1.0, 1.0], [1.0, 0.0], [1.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    old = numbers([-1.0, -2.0], [-1.0, NAN], [-3.0, -1.0], [-1.0, -1.0], [-2.0, NAN])
    reference = numbers([-2.0, -2.0], [-1.0, NAN], [-1.0, -1.0], [-2.0, -2.0], [-2.0, NAN])
    columns = {"score": numbers(*score), "group": GROUP}
    return Batch(mask={"completion": mask}, finished={"completion": torch.tensor(finished)},
                 old={"completion": old}, reference={"completion": reference}, columns=columns)  # fmt: skip


def prepared(loss, batch, state=None):
    """The batch as its epochs see it."""
    return replace(batch, prepared=loss.prepare(batch, {} if state is None else state))


def on_policy(batch):
    """Log-probs equal to those at sampling."""
    return {"completion": batch.old["completion"].clone().requires_grad_()}


# -- advantages within groups -------------------------------------------------------------------------------------


def test_leave_one_out_by_hand():
    # others' means: 1.5, 2.5, 2 and 1, 5
    close(leave_one_out(numbers(3, 1, 2, 5, 1), GROUP), 1.5, -1.5, 0.0, 4.0, -4.0)


def test_standardised_by_hand():
    # means 2 and 3, squares 1 + 1 + 0 over 2 and 4 + 4 over 1
    half = 2 / math.sqrt(8)
    close(standardised_in_groups(numbers(3, 1, 2, 5, 1), GROUP), 1.0, -1.0, 0.0, half, -half)


@pytest.mark.parametrize("advantages", [leave_one_out, standardised_in_groups])
def test_the_order_of_rows_and_the_numbers_of_groups_do_not_matter(advantages):
    reward, order = numbers(3, 1, 2, 5, 1), torch.tensor([4, 0, 3, 2, 1])
    assert_close(advantages(reward[order], 7 - GROUP[order]), advantages(reward, GROUP)[order])


@pytest.mark.parametrize("advantages", [leave_one_out, standardised_in_groups])
def test_equal_rewards_and_a_completion_alone_have_no_advantage(advantages):
    assert_close(advantages(numbers(7, 7, 7, 5, 1), torch.tensor([0.0, 0, 0, 1, 2])), numbers(0, 0, 0, 0, 0))


def test_rounding_of_equal_rewards_is_not_scaled_up():
    reward = torch.tensor([1000.1, 1000.1 + 6.2e-5, 1000.1])
    assert reward[0] != reward[1]
    assert_close(standardised_in_groups(reward, torch.zeros(3)), torch.zeros(3))
    assert group_spread(torch.tensor([1e-3, 2e-3, 3e-3]), torch.zeros(3))[0] == pytest.approx(1e-3)


@pytest.mark.parametrize("scale", [0.1, 30.0])
def test_standardised_advantages_forget_the_scale_and_the_origin(scale):
    reward = numbers(3, 1, 2, 5, 1)
    assert_close(standardised_in_groups(scale * reward - 4, GROUP), standardised_in_groups(reward, GROUP))
    assert_close(leave_one_out(scale * reward - 4, GROUP), scale * leave_one_out(reward, GROUP))


# -- RLOO ---------------------------------------------------------------------------------------------------------


def test_rloo_prepare_by_hand():
    state = {}
    batch = prepared(RLOOLoss(kl_coef=0.5, missing_eos_penalty=2.0), rollouts(), state)
    # rewards 3 - .5, 1, 2 + 1, 5 - 1, 1 - 2; others' means 2, 2.75, 1.75 and -1, 4
    close(batch.prepared["advantages"], 0.5, -1.75, 1.25, 5.0, -5.0)
    assert state == {
        "objective/kl": pytest.approx(0.2),
        "objective/scores": pytest.approx(2.4),
        "objective/finished": pytest.approx(0.8),
        "objective/informative": pytest.approx(1.0),
        "objective/rlhf_reward": pytest.approx(1.9),
    }


def test_rloo_by_hand():
    # advantages 2 and -2 in one group; ratios 1.5, beyond the clip, and e^.1 e^-.3
    batch = Batch(
        mask={"completion": torch.ones(2, 2)},
        old={"completion": numbers([-1, -1], [-2, -1])},
        prepared={"advantages": numbers(2, -2)},
    )
    logps = numbers([-1 + math.log(1.5), -1], [-1.9, -1.3])
    loss, metrics = RLOOLoss(cliprange=0.25)({"completion": logps}, batch)
    close(loss, -2.5, 2 * math.exp(-0.2))  # min(3, 2 * 1.25) and min(-2 * .818731, -2 * .818731)
    close(metrics["ratio"], 1.5, 0.8187308)
    close(metrics["clipfrac"], 1.0, 0.0)
    close(metrics["approxkl"], 0.5 * math.log(1.5) ** 2, 0.02)


def test_on_the_first_step_rloo_is_reinforce():
    batch = prepared(RLOOLoss(kl_coef=0.5), rollouts())
    outputs = on_policy(batch)
    loss, metrics = RLOOLoss(kl_coef=0.5)(outputs, batch)
    loss.sum().backward()
    advantages, mask = batch.prepared["advantages"], batch.mask["completion"]
    assert_close(outputs["completion"].grad, -advantages[:, None] * mask.double())  # of log pi of each token
    assert_close(metrics["ratio"], torch.ones(5).double())
    assert (metrics["clipfrac"].sum(), metrics["approxkl"].sum()) == (0, 0)


def test_rloo_of_two_is_half_the_difference_of_rewards_each_way():
    close(leave_one_out(numbers(3, 1), torch.zeros(2)), 2.0, -2.0)


# -- GRPO ---------------------------------------------------------------------------------------------------------


def test_grpo_prepare_by_hand():
    state = {}
    batch = prepared(GRPOLoss(missing_eos_penalty=3.0), rollouts(score=(4.0, 4.0, 4.0, 4.0, 1.0)), state)
    close(batch.prepared["advantages"], 0.0, 0.0, 0.0, math.sqrt(0.5), -math.sqrt(0.5))  # 6 apart
    assert state["objective/informative"] == pytest.approx(0.5)
    assert "objective/rlhf_reward" not in state  # its KL is not in the reward


def test_grpo_by_hand():
    """Two tokens and one; ratios 2, clipped at 1.2, and 1, then .5, which the clip must not forgive."""
    batch = Batch(
        mask={"completion": torch.tensor([[1.0, 1.0], [1.0, 0.0]])},
        old={"completion": numbers([-1, -2], [-1, NAN])},
        reference={"completion": numbers([-1 + math.log(2), -3], [-1 - math.log(2), NAN])},
        prepared={"advantages": numbers(1, 3)},
    )
    logps = numbers([-1 + math.log(2), -2], [-1 - math.log(2), NAN]).requires_grad_()
    loss, metrics = GRPOLoss(kl_coef=0.5)({"completion": logps}, batch)
    # k3: at log-ratio -1 of reference to policy e^-1 - 1 + 1 = .367879, else 0; the first row is a mean of two tokens
    close(metrics["k3"], 0.1839397, 0.0)
    close(metrics["policy_loss"], -1.1, -1.5)
    close(loss, -1.1 + 0.5 * 0.1839397, -1.5)
    close(metrics["clipfrac"], 0.5, 0.0)
    close(metrics["ratio"], 1.5, 0.5)
    loss.sum().backward()
    # second token: (-1 + .5 (1 - e^-1)) / 2; a clipped token has the KL's gradient alone, which is 0 here
    assert_close(logps.grad, numbers([0.0, (-1 + 0.5 * (1 - math.exp(-1))) / 2], [-1.5, 0.0]))


def test_on_the_first_step_grpo_is_the_advantage_and_the_kl_term():
    loss, batch = GRPOLoss(kl_coef=0.0), prepared(GRPOLoss(), rollouts())
    outputs = on_policy(batch)
    rows, metrics = loss(outputs, batch)
    rows.sum().backward()
    advantages, mask = batch.prepared["advantages"], batch.mask["completion"].double()
    assert_close(outputs["completion"].grad, -advantages[:, None] * mask / mask.sum(1, keepdim=True))
    assert_close(rows.detach(), -advantages)
    assert (metrics["clipfrac"].sum(), metrics["approxkl"].sum()) == (0, 0)


def by_enumeration(loss, reward, policy_logits, reference):
    """The expected gradient by the logits of one-token completions, each drawn with its probability."""
    logits = policy_logits.clone().requires_grad_()
    logps = logits.log_softmax(-1)[:, None]
    batch = Batch(
        mask={"completion": torch.ones_like(logps)},
        old={"completion": logps.detach()},
        reference={"completion": reference.log()[:, None]},
        prepared={"advantages": reward},
    )
    rows, _ = loss({"completion": logps}, batch)
    (rows * logps.detach().exp()[:, 0]).sum().backward()
    return logits.grad


def test_the_gradient_of_grpos_kl_term_is_that_of_the_kl_the_other_way_round():
    logits, reference = numbers(0.3, -1.0, 0.7, 0.0), numbers(0.1, 0.2, 0.3, 0.4)
    found = by_enumeration(GRPOLoss(kl_coef=1.0), torch.zeros(4).double(), logits, reference)
    free = logits.clone().requires_grad_()
    (reference * (reference.log() - free.log_softmax(-1))).sum().backward()  # KL(reference || policy)
    assert_close(found, free.grad)
    assert_close(found, logits.softmax(-1) - reference)


def test_grpo_rests_where_the_docs_say():
    """Of one-token completions: policy = kl_coef reference / (kl_coef - advantage), advantages having mean 0."""
    policy, advantage, kl_coef = numbers(0.5, 0.3, 0.2), numbers(0.2, -0.2, -0.2), 0.5
    assert float((policy * advantage).sum()) == pytest.approx(0)
    reference = policy * (kl_coef - advantage) / kl_coef
    assert float(reference.sum()) == pytest.approx(1)
    gradient = by_enumeration(GRPOLoss(kl_coef=kl_coef), advantage, policy.log(), reference)
    assert_close(gradient, torch.zeros(3).double(), atol=1e-12, rtol=0)


def test_rloo_rests_at_the_tilted_reference_model():
    reference, score, kl_coef = numbers(0.1, 0.2, 0.3, 0.4), numbers(1.0, -1.0, 0.5, 0.0), 0.5
    logits = reference.log() + score / kl_coef
    reward = score - kl_coef * (logits.log_softmax(-1) - reference.log())
    gradient = by_enumeration(RLOOLoss(kl_coef=kl_coef), reward, logits, reference)
    assert_close(gradient, torch.zeros(4).double(), atol=1e-12, rtol=0)


# -- both ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [RLOOLoss(), GRPOLoss()])
def test_padding_is_never_read(loss):
    batch = prepared(loss, rollouts())
    outputs = on_policy(batch)
    rows, metrics = loss(outputs, batch)
    rows.sum().backward()
    for value in (rows, outputs["completion"].grad, *metrics.values(), *batch.prepared.values()):
        assert torch.isfinite(value).all()
    assert (outputs["completion"].grad[batch.mask["completion"] == 0] == 0).all()
    assert not any(metric.requires_grad for metric in metrics.values())


@pytest.mark.parametrize("loss", [RLOOLoss(kl_coef=0.0), GRPOLoss(kl_coef=0.0)])
def test_a_phase_of_equal_scores_teaches_nothing(loss):
    state = {}
    batch = prepared(loss, rollouts(score=(2.0,) * 5, finished=(True,) * 5), state)
    outputs = on_policy(batch)
    loss(outputs, batch)[0].sum().backward()
    assert_close(outputs["completion"].grad, torch.zeros(5, 2).double())
    assert state["objective/informative"] == 0.0


@pytest.mark.parametrize("loss", [RLOOLoss(missing_eos_penalty=0.0), GRPOLoss(missing_eos_penalty=0.0)])
def test_t10_a_constant_added_to_the_reward_model_changes_nothing(loss):
    first, second = (loss.prepare(rollouts(score), {}) for score in ((3.0, 1, 2, 5, 1), (13.0, 11, 12, 15, 11)))
    assert_close(first, second)


# -- online DPO ---------------------------------------------------------------------------------------------------


def test_online_dpo_is_dpo_on_its_pairs():
    outputs, batch = pair_batch()
    loss, state = OnlineDPOLoss(beta=0.1), {}
    batch = replace(batch, columns={"score": torch.tensor([1.0, 2.0])})
    assert loss.prepare(batch, state) == {}
    assert state == {"objective/pairs": 2.0, "objective/scores": 1.5}
    close(loss(outputs, batch)[0], NLS[0.5], NLS[-1])
    assert (loss.columns, replace(loss, soft=True).columns) == ({"score"}, {"score", "probability"})


def test_online_dpo_with_soft_labels_is_soft_dpo():
    outputs, batch = pair_batch(torch.float64)
    batch = replace(batch, columns={"probability": numbers(0.75, 0.5), "score": numbers(0, 0)})
    both = [loss(beta=0.1, soft=True)(outputs, batch)[0] for loss in (OnlineDPOLoss, DPOLoss)]
    assert_close(*both)
    close(both[0].float(), 0.75 * NLS[0.5] + 0.25 * NLS[-0.5], 0.5 * NLS[-1] + 0.5 * NLS[1])
