"""Hindsight relabelling: grades, instructions and the loss, in numbers worked out by hand."""

import math
from dataclasses import replace

import pytest
import torch
from datasets import Dataset, concatenate_datasets
from torch.testing import assert_close

from alignarena.core.contract import Batch
from alignarena.core.errors import BadInput
from alignarena.methods.parts.hindsight import HIRLoss, checked, graded, relabelled, tally

GRADES = ("Badly.", "Fairly.", "Well.")


def rows(scores, stops=None):
    """One sampled row a score."""
    stops = stops or [True] * len(scores)
    return Dataset.from_list(
        [
            {"prompt_id": f"p{i}", "prompt": f"x{i}", "completion": "y", "logps": [-1.0, -0.5], "score": score,
             "prompt_ids": [1], "finish_reason": "stop" if stop else "length"}
            for i, (score, stop) in enumerate(zip(scores, stops, strict=True))
        ]
    )  # fmt: skip


def grades_of(scored, grades=3, within_prompt=False):
    return graded(scored, grades, within_prompt)["grade"][:]


def loss_of(loss, logps, grade, sampled=None):
    """The losses of completions of one token with log-probs (B, K) under the instructions, and their gradients."""
    logps = torch.tensor(logps, dtype=torch.float64, requires_grad=True)
    outputs = {key: logps[:, k : k + 1] for k, key in enumerate(loss.reads)}
    sampled = torch.zeros(len(logps), dtype=torch.float64) if sampled is None else sampled
    columns = {"grade": torch.tensor(grade, dtype=torch.float64), "sampled_logp": sampled}
    batch = Batch(mask={key: torch.ones(len(logps), 1) for key in outputs}, columns=columns)
    batch.prepared.update(loss.prepare(batch, {}))
    values, metrics = loss(outputs, batch)
    return values, torch.autograd.grad(values.sum(), logps)[0], metrics


# -- grades -----------------------------------------------------------------------------------------------------------


def test_finished_completions_fall_evenly_into_the_grades():
    assert grades_of(rows([5.0, 1.0, 3.0, 2.0, 6.0, 4.0])) == [2, 0, 1, 0, 2, 1]
    assert grades_of(rows([5.0, 1.0, 3.0, 2.0]), grades=2) == [1, 0, 1, 0]


def test_grades_depend_on_the_order_of_scores_alone():
    scores = [5.0, 1.0, 3.0, 2.0, 6.0, 4.0]
    assert grades_of(rows([math.exp(2 * one) - 7 for one in scores])) == grades_of(rows(scores))


def test_what_does_not_finish_is_of_the_worst_grade_and_moves_no_edge():
    scored = rows([9.0, 1.0, 2.0, 3.0], [False, True, True, True])
    assert grades_of(scored) == [0, 0, 1, 2]
    counted = tally(graded(scored, 3, False), 3)
    assert counted == {"unfinished": 1, "grade_0": 2, "grade_1": 1, "grade_2": 1}


def test_within_a_prompt_only_its_own_samples_count():
    first, second = rows([1.0, 2.0, 3.0, 4.0]), rows([11.0, 12.0, 13.0, 14.0])
    both = concatenate_datasets([first, second])  # of each prompt one sample below 10 and one above
    assert grades_of(both, within_prompt=True, grades=2) == [0] * 4 + [1] * 4
    one = first.remove_columns("prompt_id").add_column("prompt_id", ["p"] * 4)
    other = second.remove_columns("prompt_id").add_column("prompt_id", ["q"] * 4)
    apart = concatenate_datasets([one, other])
    assert grades_of(apart, within_prompt=True) == [0, 1, 2, 2, 0, 1, 2, 2]
    assert grades_of(apart) == [0, 0, 1, 1, 1, 2, 2, 2]
    alone = rows([1.0, 5.0, -2.0], [True, True, False])  # nothing to be compared with
    assert grades_of(alone, within_prompt=True) == [2, 2, 0]


def test_ties_share_a_grade_the_better_one_they_straddle():
    assert grades_of(rows([0.0, 1.0, 1.0, 1.0, 1.0, 2.0])) == [0, 2, 2, 2, 2, 2]
    assert grades_of(rows([3.0] * 4)) == [2, 2, 2, 2]


def test_where_nothing_finishes_all_are_of_the_worst_grade():
    assert grades_of(rows([1.0, 2.0], [False, False])) == [0, 0]


def test_a_checker_has_two_grades():
    assert checked(rows([1.0, 0.0, 1.0], [True, True, False]))["grade"][:] == [1, 0, 0]


def test_every_row_is_told_every_instruction_before_its_own_prompt():
    told = relabelled(graded(rows([1.0, 2.0, 3.0]), 3, False), GRADES)
    assert [told[i]["prompt_2"] for i in range(3)] == ["Well. x0", "Well. x1", "Well. x2"]
    assert [told[1][f"prompt_{k}"] for k in range(3)] == ["Badly. x1", "Fairly. x1", "Well. x1"]
    assert (told[1]["grade"], told[1]["sampled_logp"]) == (1, -1.5)
    assert told[1]["prompt_own"] == told[1]["prompt_1"]


def test_where_likelihood_alone_counts_the_own_instruction_is_all_that_is_computed():
    assert HIRLoss(alpha=0.0, entropy_coef=0.0).reads == {"own": ("prompt_own", "completion")}
    for needing in (HIRLoss(alpha=0.0), HIRLoss(entropy_coef=0.0)):
        assert list(needing.reads) == ["grade_0", "grade_1", "grade_2"]


# -- the loss ---------------------------------------------------------------------------------------------------------


def test_the_loss_by_hand():
    # q = (1/4, 1/2, 1/4) of log-probs -2, -2 + log 2, -2; the own grade is the second
    logps = [[-2.0, -2.0 + math.log(2), -2.0]]
    plain = HIRLoss(alpha=0.0, entropy_coef=0.0)
    values, gradient, metrics = loss_of(plain, [[-2.0 + math.log(2)]], [1])
    assert_close(values, torch.tensor([2 - math.log(2)], dtype=torch.float64))
    assert gradient.tolist() == [[-1.0]] and set(metrics) == {"best", "nll", "entropy"}
    contrast = 0.8 * math.log(2) + 0.2 * math.log(4)
    values, gradient, metrics = loss_of(HIRLoss(alpha=0.5, entropy_coef=0.0), logps, [1])
    assert_close(values, torch.tensor([2 - math.log(2) + 0.5 * contrast], dtype=torch.float64))
    # by l_k: alpha (q_k - its share of the smoothed label), and -1 for the likelihood
    wanted = [[0.5 * (0.25 - 0.1), -1 + 0.5 * (0.5 - 0.8), 0.5 * (0.25 - 0.1)]]
    assert_close(gradient, torch.tensor(wanted, dtype=torch.float64))
    assert {name: round(float(value), 6) for name, value in metrics.items()} == {
        "contrast": round(contrast, 6), "accuracy": 1.0, "best": 0.0, "nll": round(2 - math.log(2), 6), "entropy": 0.0
    }  # fmt: skip


def test_log_probs_are_summed_over_a_completion():
    loss = HIRLoss(grades=2, entropy_coef=0.0, label_smoothing=0.0)
    mask = torch.tensor([[1.0, 1.0, 0.0]], dtype=torch.float64)
    outputs = {"grade_0": torch.tensor([[-1.0, -2.0, -9.0]]), "grade_1": torch.tensor([[-1.0, -1.0, math.inf]])}
    outputs = {key: value.double() for key, value in outputs.items()}
    columns = {"grade": torch.ones(1), "sampled_logp": torch.tensor([-2.5], dtype=torch.float64)}
    batch = Batch(mask=dict.fromkeys(outputs, mask), columns=columns)
    batch.prepared.update(loss.prepare(batch, {}))
    values, metrics = loss(outputs, batch)
    assert_close(values, torch.tensor([2 + math.log1p(math.exp(-1))], dtype=torch.float64))
    # sums over tokens: the trainer divides by the two tokens there are
    assert (metrics["accuracy"].item(), metrics["nll"].item(), metrics["entropy"].item()) == (2.0, 2.0, 2.5)


@pytest.mark.parametrize(("smoothing", "least"), [(0.2, 0.8), (0.0, 1.0)])
def test_t20_a_contrast_of_two_is_least_where_the_own_instruction_has_what_smoothing_leaves_it(smoothing, least):
    loss = HIRLoss(grades=2, alpha=1.0, entropy_coef=0.0, label_smoothing=smoothing)
    q = torch.linspace(0.01, 1 - 1e-9, 100, dtype=torch.float64)
    logps = torch.stack([(1 - q).log(), q.log()], 1)
    contrast = loss._contrast(logps, torch.ones(100, dtype=torch.long))
    assert q[contrast.argmin()].item() == pytest.approx(least, abs=0.01)
    _, gradient, _ = loss_of(loss, [[math.log(1 - 0.8), math.log(0.8)]], [1])
    assert gradient[0, 1].item() + 1 == pytest.approx(0.8 - least)  # at q = .8, but for the likelihood's -1


def test_a_contrast_of_more_is_least_where_the_others_share_evenly():
    _, gradient, _ = loss_of(HIRLoss(entropy_coef=0.0), [[math.log(0.1), math.log(0.8), math.log(0.1)]], [1])
    assert_close(gradient, torch.tensor([[0.0, -1.0, 0.0]], dtype=torch.float64))


def test_under_equal_instructions_the_contrast_is_log_k():
    _, _, metrics = loss_of(HIRLoss(), [[-3.0, -3.0, -3.0]], [2])
    assert metrics["contrast"].item() == pytest.approx(math.log(3))


# -- entropy ----------------------------------------------------------------------------------------------------------


def entropy_gradient(logits, drawn_from):
    """The gradient by logits of the loss's entropy term, in expectation over draws; the rest of the loss taken off."""
    logits = logits.clone().requires_grad_()
    logps = torch.log_softmax(logits, 0)
    sampled = torch.log_softmax(drawn_from, 0)
    columns = {"grade": torch.ones(4), "sampled_logp": sampled}
    outputs = {"grade_0": torch.zeros(4, 1, dtype=torch.float64), "grade_1": logps[:, None]}
    batch = Batch(mask={key: torch.ones(4, 1) for key in outputs}, columns=columns)
    mean = (sampled.exp() * sampled).sum()  # what the baseline comes to over many draws
    batch.prepared["baseline"] = mean.expand(4)
    losses = [replace(HIRLoss(grades=2), entropy_coef=one)(outputs, batch)[0] for one in (1.0, 0.0)]
    return torch.autograd.grad((sampled.exp() * (losses[0] - losses[1])).sum(), logits)[0]


def test_the_entropy_term_has_the_gradient_of_minus_the_entropy():
    policy = torch.tensor([0.3, -1.0, 1.2, 0.1], dtype=torch.float64, requires_grad=True)
    logps = torch.log_softmax(policy, 0)
    wanted = torch.autograd.grad((logps.exp() * logps).sum(), policy)[0]
    assert_close(entropy_gradient(policy.detach(), policy.detach()), wanted)


def test_the_entropy_term_points_the_same_way_after_the_policy_has_moved():
    drawn_from = torch.tensor([0.3, -1.0, 1.2, 0.1], dtype=torch.float64)
    moved = torch.tensor([0.0, -1.5, 1.6, 0.1], dtype=torch.float64, requires_grad=True)
    logps = torch.log_softmax(moved, 0)
    wanted = torch.autograd.grad((logps.exp() * logps).sum(), moved)[0]
    found = entropy_gradient(moved.detach(), drawn_from)
    assert torch.cosine_similarity(found, wanted, dim=0) > 0.9


def test_an_unlikely_past_draw_cannot_shout():
    loss = HIRLoss(grades=2, alpha=0.0, entropy_coef=1.0)
    _, gradient, _ = loss_of(loss, [[0.0, -1.0]], [0], sampled=torch.tensor([-50.0], dtype=torch.float64))
    assert gradient[0, 1].item() == pytest.approx(-1.0 + 50.0)  # the weight is 1, not e^49


# -- what is refused --------------------------------------------------------------------------------------------------


def test_one_grade_is_no_contrast():
    with pytest.raises(BadInput, match="at least 2 grades, got 1"):
        HIRLoss(grades=1)


@pytest.mark.parametrize("smoothing", [-0.1, 0.5])
def test_smoothing_leaves_the_own_instruction_the_likeliest(smoothing):
    with pytest.raises(BadInput, match="label_smoothing must be from 0 to below"):
        HIRLoss(grades=2, label_smoothing=smoothing)
