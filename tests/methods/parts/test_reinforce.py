"""Numbers are worked out by hand in the comments, in float64, not by the formulas under test."""

import math

import pytest
import torch
from loss_batches import close

from alignarena.core.contract import Batch
from alignarena.core.errors import BadInput
from alignarena.methods.parts.advantages import explained_variance
from alignarena.methods.parts.reinforce import ReinforceLoss

NAN = float("nan")


def rollouts(score=(2.0, 1.0), finished=(True, False)):
    """Completions of three tokens and one; old - reference is 1, 0, 2 and 0 nats."""
    tensor = lambda rows: torch.tensor(rows, dtype=torch.float64)  # noqa: E731
    return Batch(
        mask={"completion": tensor([[1, 1, 1], [1, 0, 0]])},
        finished={"completion": torch.tensor(finished)},
        old={"completion": tensor([[-1, -2, -1], [-1, NAN, NAN]])},
        reference={"completion": tensor([[-2, -2, -3], [-1, NAN, NAN]])},
        old_values={"completion": tensor([[0.5, 1, 0.5], [0.25, NAN, NAN]])},
        columns={"score": torch.tensor(score, dtype=torch.float64)},
    )


def test_returns_weigh_score_and_the_kl_to_go():
    state = {}
    returns = ReinforceLoss(kl_coef=0.2, missing_eos_penalty=0.5).prepare(rollouts(), state)["returns"]
    # row 1: .8 x 2 = 1.6, less .2 of the 3, 2 and 2 nats still to come: 1.0, 1.2, 1.2; row 2: .8 x (1 - .5) = .4
    close(returns, [1.0, 1.2, 1.2], [0.4, 0.0, 0.0])
    # KL (3 + 0) / 2; objective (1.0 + .4) / 2: what a completion's first token returns is what the completion earns
    expected = {"kl": 1.5, "scores": 1.5, "finished": 0.5, "rlhf_reward": 0.7}
    assert {name: state[f"objective/{name}"] for name in expected} == pytest.approx(expected)
    # returns 1, 1.2, 1.2, .4: mean .95, squares .0025 + .0625 + .0625 + .3025 = .43
    # less values .5, .2, .7, .15: mean .3875, squares .01265625 + .03515625 + .09765625 + .05640625 = .201875
    assert state["objective/explained_variance"] == pytest.approx(1 - 0.201875 / 0.43)


def step(logps, values, returns):
    """Returns the outputs and the batch of a step, with gradients for log-probs and values."""
    outputs = torch.tensor(logps, dtype=torch.float64, requires_grad=True)
    batch = rollouts()
    batch.values["completion"] = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    batch.prepared["returns"] = torch.tensor(returns, dtype=torch.float64)
    return {"completion": outputs}, batch


def test_reinforce_by_hand():
    outputs, batch = step(
        [[-1.0, -2.0, -1.5], [-1.0, NAN, NAN]], [[0.5, 1.0, 1.0], [1.0, NAN, NAN]], [[1.0, 1.2, 1.2], [0.4, 0.0, 0.0]]
    )
    loss, metrics = ReinforceLoss()(outputs, batch)
    # errors .5, .2, .2 and -.6; policy: 1 x .5 + 2 x .2 + 1.5 x .2 = 1.2 and -.6; value: .25 + .04 + .04 = .33 and .36
    close(metrics["policy_loss"], 1.2, -0.6)
    close(metrics["value_loss"], 0.33, 0.36)
    close(loss, 1.53, -0.24)
    close(metrics["approxkl"], 0.125, 0.0)  # half of (-.5)^2 at the third token
    loss.sum().backward()
    # the policy's gradient is minus the error, the value's -2 times it: neither sees the other's term
    close(outputs["completion"].grad, [-0.5, -0.2, -0.2], [0.6, 0.0, 0.0])
    close(batch.values["completion"].grad, [-1.0, -0.4, -0.4], [1.2, 0.0, 0.0])


def test_the_gradient_is_that_of_the_objective():
    """Over all completions of one token and V = 0, it is the gradient of (1 - b) E[r] - b KL(pi || ref)."""
    coef, rewards = 0.25, torch.tensor([1.0, -0.5, 2.0], dtype=torch.float64)
    logits = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64, requires_grad=True)
    reference = torch.log_softmax(torch.tensor([0.0, 0.5, -1.0], dtype=torch.float64), 0)
    logps = torch.log_softmax(logits, 0)
    objective = (1 - coef) * (logps.exp() * rewards).sum() - coef * (logps.exp() * (logps - reference)).sum()
    (expected,) = torch.autograd.grad(objective, logits, retain_graph=True)
    one = torch.ones(3, 1, dtype=torch.float64)
    batch = Batch(
        mask={"completion": one}, finished={"completion": torch.ones(3, dtype=torch.bool)},
        old={"completion": logps.detach()[:, None]}, reference={"completion": reference[:, None]},
        old_values={"completion": 0 * one}, values={"completion": 0 * one}, columns={"score": rewards},
    )  # fmt: skip
    loss_of = ReinforceLoss(kl_coef=coef)
    batch.prepared.update(loss_of.prepare(batch, {}))
    loss, _ = loss_of({"completion": logps[:, None]}, batch)
    (found,) = torch.autograd.grad((logps.detach().exp() * loss).sum(), logits)
    close(-found, *expected.tolist())


def test_at_the_optimum_every_completion_returns_the_same():
    coef, rewards = 0.25, torch.tensor([1.0, -0.5, 2.0], dtype=torch.float64)
    reference = torch.log_softmax(torch.tensor([0.0, 0.5, -1.0], dtype=torch.float64), 0)
    best = torch.log_softmax(reference + rewards * (1 - coef) / coef, 0)
    one = torch.ones(3, 1, dtype=torch.float64)
    batch = Batch(
        mask={"completion": one}, finished={"completion": torch.ones(3, dtype=torch.bool)},
        old={"completion": best[:, None]}, reference={"completion": reference[:, None]},
        old_values={"completion": 0 * one}, columns={"score": rewards},
    )  # fmt: skip
    returns = ReinforceLoss(kl_coef=coef).prepare(batch, {})["returns"][:, 0]
    close(returns, *[returns[0].item()] * 3)


def test_equal_returns_have_no_variance_to_explain():
    zeros = torch.zeros(2, 2)
    assert explained_variance(zeros + 1, zeros, torch.ones(2, 2)) == 0.0
    assert explained_variance(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 2.0]]), torch.ones(1, 2)) == 1.0


@pytest.mark.parametrize("coef", [-0.1, 1.0, math.inf])
def test_the_kl_may_not_take_all_weight(coef):
    with pytest.raises(BadInput, match="kl_coef must be at least 0 and below 1"):
        ReinforceLoss(kl_coef=coef)
