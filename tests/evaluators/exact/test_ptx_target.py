from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from alignarena.core.contract import Batch
from alignarena.evaluators.exact.optimum import expectation, kl, normalised, objective, tilted
from alignarena.evaluators.exact.ptx_target import ppo_ptx
from alignarena.methods.parts.policy_gradient import PPOLoss


def a_world(leaves=6, prompts=2):
    random = np.random.default_rng(0)
    reference, demonstrations = normalised(1.5 * random.normal(size=(2, prompts, leaves)))
    return reference, random.normal(size=(prompts, leaves)), demonstrations


@pytest.mark.parametrize("kl_coef", [0.05, 0.3, 2.0])
@pytest.mark.parametrize("ptx_coef", [0.01, 0.3, 5.0])
def test_it_maximises_reward_less_kl_and_the_likelihood_of_demonstrations(kl_coef, ptx_coef):
    reference, reward, demonstrations = a_world()
    found = ppo_ptx(reference, reward, kl_coef, ptx_coef, demonstrations)
    assert np.exp(found).sum(-1) == pytest.approx([1, 1])

    def value(log_policy, prompt):
        one = slice(prompt, prompt + 1)
        earned = objective(log_policy[None], reference[one], reward[one], kl_coef)
        return (earned + ptx_coef * expectation(demonstrations[one], log_policy[None]))[0]

    for prompt in range(2):
        best = minimize(lambda x, p=prompt: -value(normalised(x), p), reference[prompt], options={"gtol": 1e-9})
        assert value(found[prompt], prompt) >= -best.fun - 1e-9
        assert np.exp(found[prompt]) == pytest.approx(np.exp(normalised(best.x)), abs=1e-4)


def test_by_hand():
    # kl_coef 1, ref even, reward 0, d = (3/4, 1/4): pi log(pi / ref) + ... is least where, for pi = (p, 1 - p),
    # log(p / (1 - p)) = ptx (3 / (4 p) - 1 / (4 (1 - p))); p = 2/3 makes that log 2 = ptx (9/8 - 3/4) = ptx 3/8
    found = ppo_ptx(np.log([[0.5, 0.5]]), np.zeros((1, 2)), 1.0, np.log(2) * 8 / 3, np.log([[0.75, 0.25]]))
    assert np.exp(found) == pytest.approx(np.array([[2 / 3, 1 / 3]]))


def test_between_the_optimum_and_the_demonstrations():
    reference, reward, demonstrations = a_world(leaves=40)
    optimum = tilted(reference, reward, 0.3)
    ends = (ppo_ptx(reference, reward, 0.3, coef, demonstrations) for coef in (1e-9, 1e6))
    for found, expected in zip(ends, (optimum, demonstrations), strict=True):
        assert np.exp(found) == pytest.approx(np.exp(expected), abs=1e-5)
    between = [ppo_ptx(reference, reward, 0.3, coef, demonstrations) for coef in (0.01, 0.1, 1.0, 10.0)]
    assert (np.diff([kl(demonstrations, one).mean() for one in between]) < 0).all()


def test_a_completion_that_is_never_shown_has_its_place_all_the_same():
    shown = np.log([[0.5, 0.5, 1e-300]])
    shown[0, 2] = -np.inf
    found = ppo_ptx(np.log([[0.2, 0.3, 0.5]]), np.array([[0.0, 1.0, 2.0]]), 0.5, 0.2, shown)
    assert np.isfinite(found).all() and np.exp(found).sum() == pytest.approx(1)


def expected_gradient(loss, log_policy, reference, reward, demonstrations):
    """Of the loss by the logits of completions of one token, all pairs of a completion and a demonstration weighed."""
    logits = torch.tensor(log_policy, requires_grad=True)
    count = len(log_policy)
    drawn, shown = (torch.arange(count).repeat_interleave(count), torch.arange(count).repeat(count))
    every = torch.log_softmax(logits, 0)
    outputs = {"completion": every[drawn][:, None], "demonstration": every[shown][:, None]}
    ones = torch.ones(count**2, 1, dtype=torch.float64)
    nothing = {"completion": 0 * ones}
    batch = Batch(
        mask={"completion": ones, "demonstration": ones},
        finished={"completion": torch.ones(count**2, dtype=torch.bool)},
        reference={"completion": torch.tensor(reference)[drawn][:, None]},
        old={"completion": outputs["completion"].detach()}, values=nothing, old_values=nothing,
        columns={"score": torch.tensor(reward)[drawn]},
    )  # fmt: skip
    rows, _ = loss(outputs, replace(batch, prepared=loss.prepare(batch, {})))
    weights = every.detach().exp()[drawn] * torch.tensor(demonstrations).exp()[shown]
    return torch.autograd.grad((weights * rows).sum(), logits)[0].numpy()


@pytest.mark.parametrize("ptx_coef", [0.05, 0.5])
def test_at_the_target_the_loss_of_ppo_ptx_has_no_gradient(ptx_coef):
    reference, reward, demonstrations = (one[0] for one in a_world())
    found = ppo_ptx(reference[None], reward[None], 0.3, ptx_coef, demonstrations[None])[0]
    loss = PPOLoss(kl_coef=0.3, vf_coef=0.0, lam=1.0, whiten_advantages=False, ptx_coef=ptx_coef)
    assert expected_gradient(loss, found, reference, reward, demonstrations) == pytest.approx(0, abs=1e-9)
    twice = replace(loss, ptx_coef=2 * ptx_coef)
    assert np.abs(expected_gradient(twice, found, reference, reward, demonstrations)).max() > 1e-3
