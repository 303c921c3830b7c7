"""CPL on whole rankings; numbers are worked out by hand in the comments, in float64."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from loss_batches import NLS, close
from torch.testing import assert_close

from alignarena.core.contract import Batch
from alignarena.core.errors import BadInput
from alignarena.methods.parts.regret_losses import CPLLoss, KWiseCPLLoss

NAN = float("nan")
LOSSES = {
    "plain": KWiseCPLLoss(alpha=0.5, to_reference=False),
    "biased": KWiseCPLLoss(alpha=0.2, bias=0.5, bc_coef=0.3),
    "ties": KWiseCPLLoss(alpha=0.2, bias=0.5, gamma=0.9, label_ties=True),
}


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def rankings(fill=NAN):
    """A ranking of three, whose first two tie, and one of two; log-ratios 2, 4 and -2, then -6 and 0."""
    outputs = tensor([[[-1, -1], [-2, fill], [-3, -1]], [[-4, -4], [-1, fill], [fill, fill]]]).requires_grad_()
    reference = tensor([[[-2, -2], [-6, fill], [-1, -1]], [[-1, -1], [-1, fill], [fill, fill]]])
    mask = tensor([[[1, 1], [1, 0], [1, 1]], [[1, 1], [1, 0], [0, 0]]])
    columns = {"ranks": tensor([[1, 1, 3], [2, 1, NAN]]), "same_as": tensor([[0, 1, 2], [0, 1, NAN]])}
    return {"completions": outputs}, Batch(
        mask={"completions": mask}, reference={"completions": reference}, columns=columns
    )


def test_kwise_cpl_by_hand():
    outputs, batch = rankings()
    loss, metrics = KWiseCPLLoss(alpha=0.25)(outputs, batch)
    # scores .5, 1 and -.5: the third is worse than both, by 1 and 1.5; then -1.5 and 0, the second is better
    close(loss, (NLS[1] + 0.201413) / 2, 0.201413)
    close(metrics["accuracy"], 1.0, 1.0)
    close(metrics["margin"], 1.25, 1.5)
    close(metrics["logps_chosen"], -2.0, -1.0)
    close(metrics["logps_rejected"], -4.0, -8.0)
    assert not any(metric.requires_grad for metric in metrics.values())


def test_kwise_cpl_labels_ties_one_half_if_told():
    outputs, batch = rankings()
    loss, metrics = KWiseCPLLoss(alpha=0.25, label_ties=True)(outputs, batch)
    # scores .5 and 1 tie: half of -log sigmoid(.5) and of -log sigmoid(-.5)
    close(loss, (NLS[1] + 0.201413 + (NLS[0.5] + NLS[-0.5]) / 2) / 3, 0.201413)
    close(metrics["margin"], 1.25, 1.5)  # of strict pairs


def test_kwise_cpl_with_bias_discount_and_cloning_by_hand():
    outputs, batch = rankings()
    loss, _ = KWiseCPLLoss(alpha=1.0, bias=0.5, gamma=0.5, to_reference=False, bc_coef=0.2)(outputs, batch)
    # scores -1 - .5, -2, -3 - .5; -4 - 2, -1. softplus(.5 x -3.5 + 1.5) and (.5 x -3.5 + 2); softplus(.5 x -6 + 1)
    # cloned: 2 nats over 2 tokens and 2 over 1, .2 x (1 + 2) / 2; 1 nat over 1
    softplus = [math.log1p(math.exp(x)) for x in (-0.25, 0.25, -2.0)]
    close(loss, (softplus[0] + softplus[1]) / 2 + 0.3, softplus[2] + 0.2)


@pytest.mark.parametrize("name", LOSSES)
def test_kwise_cpl_is_the_mean_over_the_pairs_of_a_ranking(name):
    kwise = LOSSES[name]
    outputs, batch = rankings(fill=0.0)
    fields = {field: getattr(kwise, field) for field in ("alpha", "bias", "gamma", "to_reference", "bc_coef")}
    pairwise = CPLLoss(**fields, soft=True)
    for row, count in enumerate((3, 2)):
        losses = []
        for i, j in itertools.combinations(range(count), 2):
            ranks = batch.columns["ranks"][row]
            if ranks[i] == ranks[j] and not kwise.label_ties:
                continue
            probability = 0.5 if ranks[i] == ranks[j] else float(ranks[i] < ranks[j])
            take = lambda by: {"chosen": by["completions"][row, [i]], "rejected": by["completions"][row, [j]]}  # noqa: E731, B023
            pair = Batch(
                mask=take(batch.mask), reference=take(batch.reference), columns={"probability": tensor([probability])}
            )
            losses.append(pairwise(take(outputs), pair)[0])
        assert_close(kwise(outputs, batch)[0][row], torch.cat(losses).mean())


def test_t2_kwise_cpl_of_ties_only_is_silent_and_of_equal_segments_too():
    outputs, batch = rankings()
    tied = replace(batch, columns={**batch.columns, "ranks": tensor([[1, 1, 1], [2, 2, NAN]])})
    repeated = replace(batch, columns={**batch.columns, "same_as": tensor([[0, 0, 0], [0, 0, NAN]])})
    for silent in (tied, repeated):
        loss, metrics = KWiseCPLLoss(bias=0.5, bc_coef=0.1, label_ties=silent is repeated)(outputs, silent)
        (gradient,) = torch.autograd.grad(loss.sum(), outputs["completions"])
        close(loss, 0.0, 0.0)
        close(metrics["accuracy"], 0.5, 0.5)
        close(metrics["margin"], 0.0, 0.0)
        assert_close(gradient, torch.zeros_like(gradient))


def test_t5_kwise_cpl_at_the_reference_model():
    outputs, batch = rankings()
    at_start = replace(batch, reference={"completions": outputs["completions"].detach()})
    loss, _ = KWiseCPLLoss(alpha=0.2, bias=0.5)(outputs, at_start)
    loss.sum().backward()
    close(loss, NLS[0], NLS[0])
    # -alpha / 2 for the better of a pair, alpha bias / 2 for the worse; the first row has two pairs
    expected = [[[-0.05, -0.05], [-0.05, 0], [0.05, 0.05]], [[0.05, 0.05], [-0.1, 0], [0, 0]]]
    assert_close(outputs["completions"].grad, tensor(expected))


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_those_of_finite_differences(name):
    outputs, batch = rankings(fill=0.0)
    (logps,) = outputs.values()
    assert torch.autograd.gradcheck(lambda x: LOSSES[name]({"completions": x}, batch)[0], logps)


@pytest.mark.parametrize("garbage", [NAN, math.inf, -math.inf, 1e30])
@pytest.mark.parametrize("name", LOSSES)
def test_garbage_on_padding_changes_neither_loss_nor_gradient(name, garbage):
    def run(fill):
        outputs, batch = rankings(fill)
        loss, metrics = LOSSES[name](outputs, batch)
        return loss, dict(metrics), torch.autograd.grad(loss.sum(), outputs["completions"])[0]

    clean, soiled = run(0.0), run(garbage)
    assert torch.isfinite(clean[2]).all()
    assert_close(soiled, clean)


def test_the_bias_is_checked_and_the_contract_kept():
    for bias in (0.0, 1.5):
        with pytest.raises(BadInput, match="bias must be above 0 and at most 1"):
            KWiseCPLLoss(bias=bias)
    assert (LOSSES["plain"].needs, LOSSES["biased"].needs) == (frozenset(), {"reference"})
    assert LOSSES["biased"].columns == {"ranks", "same_as"} and LOSSES["biased"].per == "row"
