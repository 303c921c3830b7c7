"""KTO, SimPO and ORPO; numbers are worked out by hand. Pairs are those of ``pair_batch``.

Mean log-probs a token: -1.5 and -4, then -1 and -1.
"""

import math
from dataclasses import replace

import pytest
import torch
from loss_batches import NLS, close, pair_batch, swapped
from torch.testing import assert_close

from alignarena.core.contract import Batch
from alignarena.methods.parts.offline_losses import KTOLoss, ORPOLoss, SimPOLoss

PAIR_LOSSES = {"simpo": SimPOLoss(), "orpo": ORPOLoss()}


def softly(batch, *probabilities):
    return replace(batch, columns={"probability": torch.tensor(probabilities, dtype=torch.float64)})


def single_batch(*desirable, dtype=torch.float64):
    """Two completions: log-ratios 2 and -3; those of the mismatched ones are 1.5 and -0.5, then -2 alone."""
    outputs = {
        "completion": torch.tensor([[-1.0, -2.0], [-4.0, 9.0]], dtype=dtype, requires_grad=True),
        "mismatched": torch.tensor([[[-1.0, 9.0], [-1.0, -1.0]], [[-3.0, 9.0], [9.0, 9.0]]], dtype=dtype),
    }
    outputs["mismatched"].requires_grad_()
    reference = {
        "completion": torch.tensor([[-2.0, -3.0], [-1.0, 0.0]], dtype=dtype),
        "mismatched": torch.tensor([[[-2.5, 0.0], [-1.0, -0.5]], [[-1.0, 0.0], [0.0, 0.0]]], dtype=dtype),
    }
    mask = {
        "completion": torch.tensor([[1.0, 1.0], [1.0, 0.0]]),
        "mismatched": torch.tensor([[[1.0, 0.0], [1.0, 1.0]], [[1.0, 0.0], [0.0, 0.0]]]),
    }
    columns = {"desirable": torch.tensor(desirable or (1.0, 0.0), dtype=dtype)}
    return outputs, Batch(mask=mask, reference=reference, columns=columns)


# -- KTO ----------------------------------------------------------------------------------------------------------


def test_kto_by_hand():
    outputs, batch = single_batch()
    loss, metrics = KTOLoss(beta=0.2)(outputs, batch)
    close(loss, 0.4255575, 0.3543437)  # 1 - sigmoid(.2 (2 - .5)); 1 - sigmoid(.2 (0 + 3)): z0 is not below 0
    close(metrics["kl"], 0.5, 0.0)
    close(metrics["accuracy"], 1.0, 1.0)
    close(metrics["margin"], 0.8, 1.2)  # twice the reward, signed by the label
    close(metrics["logps"], -3.0, -4.0)
    assert not any(metric.requires_grad for metric in metrics.values())


def test_kto_moves_the_completion_alone():
    outputs, batch = single_batch()
    KTOLoss(beta=0.2)(outputs, batch)[0].sum().backward()
    up, down = -0.0488917, 0.0457568  # beta sigmoid(x) sigmoid(-x) at .3 and at .6
    assert_close(outputs["completion"].grad, torch.tensor([[up, up], [down, 0.0]]).double(), atol=1e-7, rtol=0)
    assert outputs["mismatched"].grad is None


def test_kto_weighs_the_two_kinds():
    outputs, batch = single_batch()
    close(KTOLoss(0.2, 2.0, 1.5)(outputs, batch)[0], 2 * 0.4255575, 1.5 * 0.3543437)


def test_kto_takes_the_mean_over_a_soft_label():
    outputs, batch = single_batch(0.75, 0.25)
    close(KTOLoss(beta=0.2)(outputs, batch)[0], 0.4627787, 0.4271718)
    outputs, batch = single_batch(0.5, 0.5)  # nobody knows: nothing to learn
    loss, metrics = KTOLoss(beta=0.2)(outputs, batch)
    close(loss, 0.5, 0.5)
    close(metrics["accuracy"], 0.5, 0.5)
    loss.sum().backward()
    assert_close(outputs["completion"].grad, torch.zeros(2, 2).double())


def test_kto_at_the_reference_model():
    _, batch = single_batch()
    loss, metrics = KTOLoss()(batch.reference, batch)
    close(loss, 0.5, 0.5)
    close(metrics["kl"], 0.0, 0.0)
    close(metrics["accuracy"], 0.5, 0.5)


def test_kto_never_reads_padding():
    outputs, batch = single_batch()
    expected = KTOLoss()(outputs, batch)[0].detach()
    spoilt = {key: values.detach().masked_fill(batch.mask[key] == 0, math.nan) for key, values in outputs.items()}
    assert_close(KTOLoss()(spoilt, batch)[0], expected)


def test_kto_of_a_row_does_not_depend_on_its_neighbours():
    outputs, batch = single_batch()
    together = KTOLoss()(outputs, batch)[0]
    for row in range(2):
        one = slice(row, row + 1)
        alone = Batch(
            mask={key: values[one] for key, values in batch.mask.items()},
            reference={key: values[one] for key, values in batch.reference.items()},
            columns={"desirable": batch.columns["desirable"][one]},
        )
        assert_close(KTOLoss()({key: values[one] for key, values in outputs.items()}, alone)[0], together[one])


def test_kto_of_the_two_labels_of_one_completion_cancels():
    outputs, batch = single_batch()
    first = {key: values[:1].expand(2, *values.shape[1:]) for key, values in outputs.items()}
    both = Batch(
        mask={key: values[:1].expand(2, *values.shape[1:]) for key, values in batch.mask.items()},
        reference={key: values[:1].expand(2, *values.shape[1:]) for key, values in batch.reference.items()},
        columns=batch.columns,
    )
    KTOLoss()(first, both)[0].sum().backward()
    assert_close(outputs["completion"].grad, torch.zeros(2, 2).double())


# -- SimPO --------------------------------------------------------------------------------------------------------


def test_simpo_by_hand():
    outputs, batch = pair_batch()
    bare = Batch(mask=batch.mask)  # no reference model is asked for
    loss, metrics = SimPOLoss(beta=0.4, gamma=0.5)(outputs, bare)
    close(loss, NLS[0.5], NLS[-0.5])  # .4 x 2.5 - .5 and 0 - .5
    close(metrics["margin"], 1.0, 0.0)
    close(metrics["accuracy"], 1.0, 0.5)
    close(metrics["mean_logps_chosen"], -1.5, -1.0)
    close(metrics["mean_logps_rejected"], -4.0, -1.0)
    loss.sum().backward()
    # beta sigmoid(-.5) and beta sigmoid(.5), over the tokens of a side
    assert_close(outputs["chosen"].grad, torch.tensor([[-0.0755081, -0.0755081], [-0.2489837, 0.0]]))
    assert_close(outputs["rejected"].grad, torch.tensor([[0.1510163, 0.0, 0.0], [0.0829946] * 3]))


def test_simpo_by_hand_of_soft_labels():
    outputs, batch = pair_batch()
    loss, _ = SimPOLoss(beta=0.4, gamma=0.5, soft=True)(outputs, softly(batch, 0.75, 0.5))
    close(loss.float(), 0.75 * NLS[0.5] + 0.25 * 1.701413, NLS[-0.5])  # the margin is asked of either side


def test_simpo_does_not_see_length():
    outputs, batch = pair_batch(torch.float64)
    twice = {side: torch.cat([values, values], 1) for side, values in outputs.items()}
    longer = Batch(mask={side: torch.cat([mask, mask], 1) for side, mask in batch.mask.items()})
    assert_close(SimPOLoss()(twice, longer)[0], SimPOLoss()(outputs, batch)[0])


def test_t6_simpo_of_identical_sides_has_no_gradient():
    outputs, batch = pair_batch(torch.float64)
    same = {"chosen": outputs["chosen"], "rejected": outputs["chosen"]}
    loss, _ = SimPOLoss(gamma=1.0)(same, Batch(mask=dict.fromkeys(same, batch.mask["chosen"])))
    close(loss, NLS[-1], NLS[-1])
    loss.sum().backward()
    assert_close(outputs["chosen"].grad, torch.zeros(2, 2).double())


# -- ORPO ---------------------------------------------------------------------------------------------------------


def test_orpo_by_hand():
    outputs, batch = pair_batch(torch.float64)
    bare = Batch(mask=batch.mask)
    loss, metrics = ORPOLoss(odds_coef=0.1)(outputs, bare)
    close(loss, 1.5062936, 1.0693147)  # odds .287220 and .018657; the second pair's are equal
    close(metrics["margin"], 2.7339970, 0.0)
    close(metrics["accuracy"], 1.0, 0.5)
    close(metrics["mean_logps_chosen"], -1.5, -1.0)
    loss.sum().backward()
    chosen = [[-0.5039258, -0.5039258], [-1.0790988, 0.0]]  # the derivative of the log-odds is 1 / (1 - P)
    assert_close(outputs["chosen"].grad, torch.tensor(chosen).double(), atol=1e-6, rtol=0)
    rejected = [[0.0062135, 0.0, 0.0], [0.0263663] * 3]
    assert_close(outputs["rejected"].grad, torch.tensor(rejected).double(), atol=1e-6, rtol=0)


def test_orpo_by_hand_of_soft_labels():
    outputs, batch = pair_batch(torch.float64)
    loss, _ = ORPOLoss(odds_coef=0.1, soft=True)(outputs, softly(batch, 0.75, 1.0))
    close(loss, 2.1996436, 1.0693147)


def test_orpo_without_its_odds_is_fine_tuning_on_the_chosen_completion():
    outputs, batch = pair_batch(torch.float64)
    close(ORPOLoss(odds_coef=0.0)(outputs, batch)[0], 1.5, 1.0)


def test_orpo_of_a_certain_completion_is_finite():
    outputs, batch = pair_batch()
    certain = {side: torch.zeros_like(values).requires_grad_() for side, values in outputs.items()}
    loss, _ = ORPOLoss()(certain, batch)
    loss.sum().backward()
    close(loss, 0.1 * NLS[0], 0.1 * NLS[0])
    assert all(torch.isfinite(values.grad).all() for values in certain.values())


# -- both ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_t4_a_soft_label_does_not_care_which_side_is_called_chosen(name):
    outputs, batch = pair_batch(torch.float64)
    loss, batch = replace(PAIR_LOSSES[name], soft=True), softly(batch, 0.7, 0.2)
    assert_close(loss(*swapped(outputs, batch))[0], loss(outputs, batch)[0])


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_t4_a_certain_label_is_a_hard_one(name):
    hard, (outputs, batch) = PAIR_LOSSES[name], pair_batch(torch.float64)
    soft = replace(hard, soft=True)
    assert (hard.columns, soft.columns, hard.needs) == (frozenset(), {"probability"}, frozenset())
    assert_close(soft(outputs, softly(batch, 1.0, 1.0))[0], hard(outputs, batch)[0])
    assert_close(soft(outputs, softly(batch, 0.0, 0.0))[0], hard(*swapped(outputs, batch))[0])


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_padding_is_never_read(name):
    outputs, batch = pair_batch(torch.float64)
    spoilt = {side: values.detach().masked_fill(batch.mask[side] == 0, math.nan) for side, values in outputs.items()}
    assert_close(PAIR_LOSSES[name](spoilt, batch)[0], PAIR_LOSSES[name](outputs, batch)[0].detach())
