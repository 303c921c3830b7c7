"""IPO, CPL and soft labels; numbers are worked out by hand, for the two pairs of ``pair_batch``.

Log-ratios to the reference model: 2 and -3, then 0 and 10. Log-probs: -3 and -4, then -1 and -3.
"""

import math
from dataclasses import replace

import pytest
import torch
from loss_batches import NLS, close, pair_batch, swapped
from torch.testing import assert_close

from alignarena.core.contract import Batch
from alignarena.methods.parts.losses import DPOLoss, IPOLoss
from alignarena.methods.parts.regret_losses import CPLLoss

LOSSES = {
    "dpo": DPOLoss(),
    "ipo": IPOLoss(),
    "cpl": CPLLoss(bias=0.5),
    "dpo_free": DPOLoss(label_smoothing=0.2, reference_free=True),
    "cpl_plain": CPLLoss(bias=0.5, gamma=0.9, to_reference=False, bc_coef=0.3),
}


def gradients(loss, outputs, batch):
    """The losses, and their gradients by the log-probs of both sides."""
    rows, _ = loss(outputs, batch)
    return rows, torch.autograd.grad(rows.sum(), (outputs["chosen"], outputs["rejected"]))


def softly(batch, *probabilities):
    return replace(batch, columns={"probability": torch.tensor(probabilities, dtype=torch.float64)})


# -- soft labels --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOSSES)
def test_t4_a_soft_label_does_not_care_which_side_is_called_chosen(name):
    outputs, batch = pair_batch(torch.float64)
    loss, batch = replace(LOSSES[name], soft=True), softly(batch, 0.7, 0.2)
    rows, (chosen, rejected) = gradients(loss, outputs, batch)
    flipped, (first, second) = gradients(loss, *swapped(outputs, batch))
    assert_close(flipped, rows)
    assert_close((second, first), (chosen, rejected))


@pytest.mark.parametrize("name", LOSSES)
def test_t4_a_certain_label_is_a_hard_one(name):
    hard, (outputs, batch) = LOSSES[name], pair_batch(torch.float64)
    soft = replace(hard, soft=True)
    assert (hard.columns, soft.columns) == (frozenset(), {"probability"})
    assert_close(soft(outputs, softly(batch, 1.0, 1.0))[0], hard(outputs, batch)[0])
    assert_close(soft(outputs, softly(batch, 0.0, 0.0))[0], hard(*swapped(outputs, batch))[0])


def test_t4_conservative_dpo_is_a_soft_label():
    outputs, batch = pair_batch(torch.float64)
    smoothed = DPOLoss(label_smoothing=0.1)(outputs, batch)[0]
    assert_close(DPOLoss(soft=True)(outputs, softly(batch, 0.9, 0.9))[0], smoothed)


def test_soft_dpo_by_hand():
    outputs, batch = pair_batch()
    loss, _ = DPOLoss(beta=0.1, soft=True)(outputs, softly(batch, 0.75, 0.5))
    close(loss.float(), 0.75 * NLS[0.5] + 0.25 * NLS[-0.5], 0.5 * NLS[-1] + 0.5 * NLS[1])


# -- IPO ----------------------------------------------------------------------------------------------------------


def test_ipo_by_hand():
    outputs, batch = pair_batch()
    loss, metrics = IPOLoss(beta=0.1)(outputs, batch)
    close(loss, 0.0, 225.0)  # h is 5 and -10, its aim 1 / .2
    close(metrics["accuracy"], 1.0, 0.0)
    close(metrics["margin"], 0.5, -1.0)
    close(metrics["logratio_chosen"], 2.0, 0.0)
    loss.sum().backward()
    assert_close(outputs["chosen"].grad, torch.tensor([[0.0, 0.0], [-30.0, 0.0]]))  # 2 (h - 5)
    assert_close(outputs["rejected"].grad, torch.tensor([[0.0, 0.0, 0.0], [30.0, 30.0, 30.0]]))


@pytest.mark.parametrize(("beta", "probability"), [(0.1, 1.0), (0.05, 0.75), (0.02, 0.6)])
def test_ipo_rests_where_h_is_the_preference_over_beta(beta, probability):
    outputs, batch = pair_batch(torch.float64)  # (2 p - 1) / (2 beta) is 5, as h of the first pair
    _, (chosen, rejected) = gradients(IPOLoss(beta, soft=True), outputs, softly(batch, probability, probability))
    assert_close((chosen[0], rejected[0]), (torch.zeros(2).double(), torch.zeros(3).double()))
    assert chosen[1, 0] < 0 < rejected[1, 0]


# -- CPL ----------------------------------------------------------------------------------------------------------


def test_cpl_to_the_reference_by_hand():
    outputs, batch = pair_batch()
    loss, metrics = CPLLoss(alpha=0.2, bias=0.5)(outputs, batch)
    close(loss, 0.403186, NLS[-1])  # softplus(.5 x -.6 - .4) and softplus(.5 x 2 - 0)
    close(metrics["scores_chosen"], 0.4, 0.0)
    close(metrics["margin"], 1.0, -2.0)
    close(metrics["accuracy"], 1.0, 0.0)
    close(metrics["logps_chosen"], -3.0, -1.0)
    close(metrics["logps_rejected"], -4.0, -3.0)
    assert not any(metric.requires_grad for metric in metrics.values())
    loss.sum().backward()
    # alpha sigmoid(1), to the chosen with a minus, to the rejected times the bias
    assert_close(outputs["chosen"].grad[1], torch.tensor([-0.1462117, 0.0]))
    assert_close(outputs["rejected"].grad[1], torch.full((3,), 0.0731059))


def test_plain_cpl_by_hand():
    outputs, batch = pair_batch()
    plain = CPLLoss(alpha=0.5, to_reference=False)
    bare = Batch(mask=batch.mask)  # no reference model is asked for
    close(plain(outputs, bare)[0], NLS[0.5], NLS[1])
    # .2 of 3 nats over 2 tokens, and of 1 nat over 1
    close(replace(plain, bc_coef=0.2)(outputs, bare)[0], NLS[0.5] + 0.3, NLS[1] + 0.2)
    assert (plain.needs, CPLLoss().needs) == (frozenset(), {"reference"})


def test_cpl_discounts_from_the_first_token_of_the_segment():
    outputs, batch = pair_batch()
    loss, metrics = CPLLoss(alpha=0.2, gamma=0.5)(outputs, batch)
    # 1 + 1 / 2 against -3; 0 against 3 + 4 / 2 + 3 / 4
    close(metrics["margin"], 0.9, -1.15)
    close(loss, 0.341154, 1.425081)
    later = replace(batch, mask={**batch.mask, "rejected": torch.tensor([[1.0, 0, 0], [0.0, 1, 1]])})
    close(CPLLoss(alpha=0.2, gamma=0.5)(outputs, later)[1]["margin"], 0.9, -1.1)  # 4 + 3 / 2


@pytest.mark.parametrize("alpha", [0.05, 0.3, 2.0])
def test_t1_cpl_kl_without_bias_is_dpo(alpha):
    random = torch.Generator().manual_seed(0)
    sides = {"chosen": (16, 5), "rejected": (16, 7)}

    def drawn():
        return {side: torch.randn(size, generator=random, dtype=torch.float64) for side, size in sides.items()}

    outputs = {side: values.requires_grad_() for side, values in drawn().items()}
    batch = Batch(mask={side: (torch.rand(size, generator=random) < 0.7).float() for side, size in sides.items()})
    batch.reference = drawn()
    exactly = {"atol": 1e-10, "rtol": 0}
    assert_close(gradients(CPLLoss(alpha), outputs, batch), gradients(DPOLoss(alpha), outputs, batch), **exactly)
    batch.reference = {}
    plain = gradients(CPLLoss(alpha, to_reference=False), outputs, batch)
    assert_close(plain, gradients(DPOLoss(alpha, reference_free=True), outputs, batch), **exactly)
    batch.reference = {side: torch.zeros(size).double() for side, size in sides.items()}
    assert_close(plain, gradients(DPOLoss(alpha), outputs, batch), **exactly)


@pytest.mark.parametrize("bias", [1.0, 0.75, 0.25])
def test_t5_cpl_at_the_reference_model_weakens_only_the_push_down(bias):
    outputs, batch = pair_batch()
    at_start = replace(batch, reference={side: logps.detach() for side, logps in outputs.items()})
    rows, (chosen, rejected) = gradients(CPLLoss(alpha=0.2, bias=bias), outputs, at_start)
    close(rows, NLS[0], NLS[0])
    assert_close(chosen, -0.1 * batch.mask["chosen"])
    assert_close(rejected, 0.1 * bias * batch.mask["rejected"])


def test_t6_identical_segments_are_cloned_where_there_is_a_bias():
    outputs, batch = pair_batch()
    same, mask = dict.fromkeys(outputs, outputs["chosen"]), dict.fromkeys(batch.mask, batch.mask["chosen"])
    loss, _ = CPLLoss(alpha=0.5, bias=1 / 3, to_reference=False)(same, Batch(mask=mask))
    close(loss, NLS[-1], 0.873639)  # softplus(-(1 - 1/3) S): S is -1.5 and -.5
    (gradient,) = torch.autograd.grad(loss.sum(), outputs["chosen"])
    # -alpha (1 - 1/3) sigmoid(1), and of 1/3
    assert_close(gradient, torch.tensor([[-0.2436862, -0.2436862], [-0.1941899, 0.0]]))
    unbiased, _ = CPLLoss(alpha=0.5, to_reference=False)(same, Batch(mask=mask))
    close(unbiased, NLS[0], NLS[0])
    assert_close(torch.autograd.grad(unbiased.sum(), outputs["chosen"])[0], torch.zeros(2, 2))


# -- all ----------------------------------------------------------------------------------------------------------


def soft_case(name, dtype):
    outputs, batch = pair_batch(dtype)
    return replace(LOSSES[name], soft=True), outputs, softly(batch, 0.7, 0.2)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_those_of_finite_differences(name):
    loss, outputs, batch = soft_case(name, torch.float64)
    keys, tensors = zip(*outputs.items(), strict=True)
    assert torch.autograd.gradcheck(lambda *xs: loss(dict(zip(keys, xs, strict=True)), batch)[0], tensors)


@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf, 1e30])
@pytest.mark.parametrize("name", LOSSES)
def test_garbage_on_padding_changes_neither_loss_nor_gradient(name, garbage):
    def run(fill):
        loss, outputs, batch = soft_case(name, torch.float32)

        def soiled(values):
            return {
                side: value.detach().masked_fill(batch.mask[side] == 0, fill).requires_grad_()
                for side, value in values.items()
            }

        outputs = soiled(outputs)
        rows, grads = gradients(loss, outputs, replace(batch, reference=soiled(batch.reference)))
        return rows, grads, dict(loss(outputs, replace(batch, reference=soiled(batch.reference)))[1])

    clean, soiled_run = run(0.0), run(garbage)
    assert all(torch.isfinite(gradient).all() for gradient in clean[1])
    assert_close(soiled_run, clean)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_keep_the_contract(name):
    loss = LOSSES[name]
    assert loss.needs <= {"reference"} and loss.per == "row"
    assert hash(loss) == hash(replace(loss)) != hash(replace(loss, soft=True))
