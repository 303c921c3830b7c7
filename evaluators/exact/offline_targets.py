"""Own targets, as in ``targets``, of the methods of pairs whose objective is not a difference of log-ratios.

KTO's has a closed form but for one number a prompt; SimPO's and ORPO's are minimised numerically.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, log_expit, logsumexp

from alignarena.evaluators.exact.leaves import Floats, Ints
from alignarena.evaluators.exact.optimum import normalised
from alignarena.evaluators.exact.population import Contrast, Term, line, population_minimum

_HALVINGS = 80  # of an interval: to the last bit of a float


def kto(
    log_reference: Floats, gold: Floats, beta: float, desirable_weight: float, undesirable_weight: float,
    log_data: Floats,
) -> Floats:  # fmt: skip
    """Return KTO's target (Ethayarajh et al., 2024) for beta below 1: no mass where a leaf is undesirable on balance.

    With r = log pi / ref, w(y) = E_y'~mu[P(y beats y')] the probability that y is labelled desirable, and reference
    point z0, the mean loss is, but for a constant, -E_mu[c(y) sigmoid(beta (r(y) - z0))], where
    c = desirable_weight w - undesirable_weight (1 - w). Leaves with c <= 0 want r = -inf. On the others, with the
    multiplier of sum_y ref exp(r) = 1, mu c beta sigmoid(b) sigmoid(-b) = nu ref exp(r) at b = beta (r - z0). For
    beta < 1 the left side over exp(r) falls from infinity to 0 as r rises, so that there is one r for each nu, and one
    nu at which the masses sum to 1. Completions of other prompts then have a mean log-ratio of -inf, and z0 is 0.

    Raises:
        ValueError: beta is not below 1, or a prompt has no desirable leaf.
    """
    data = np.exp(log_data)
    wins = np.stack([expit(values[:, None] - values[None]) @ row for values, row in zip(gold, data, strict=True)])
    worth = desirable_weight * wins - undesirable_weight * (1 - wins)
    if beta >= 1 or not (worth > 0).any(-1).all():
        raise ValueError("KTO has no target of this form where beta >= 1 or no completion is desirable")
    return np.stack([_kto(*row, beta) for row in zip(log_reference, log_data, worth, strict=True)])


def _kto(log_reference: Floats, log_data: Floats, worth: Floats, beta: float) -> Floats:
    kept = worth > 0
    log_policy = np.full_like(log_reference, -np.inf)
    gain = log_data[kept] + np.log(worth[kept]) - log_reference[kept]

    def log_mass(log_multiplier: float) -> Floats:
        return np.asarray(log_reference[kept] + _ratio(log_multiplier - gain, beta))

    widest = 10.0
    while logsumexp(log_mass(-widest)) < 0 or logsumexp(log_mass(widest)) > 0:
        widest *= 2
    log_policy[kept] = log_mass(brentq(lambda one: float(logsumexp(log_mass(one))), -widest, widest, xtol=1e-12))
    return normalised(log_policy)


def _ratio(wanted: Floats, beta: float) -> Floats:
    """Return the r at which log(sigmoid(beta r) sigmoid(-beta r)) - r is as ``wanted``; it falls in r."""
    low = np.full_like(wanted, -(np.abs(wanted).max() + 2) / (1 - beta))
    high = -low
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        above = log_expit(beta * middle) + log_expit(-beta * middle) - middle > wanted
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.asarray((low + high) / 2)


def simpo(gold: Floats, beta: float, gamma: float, log_data: Floats, lengths: Ints) -> Floats:
    """Return SimPO's target (Meng et al., 2024): the minimum of softplus(gamma - s(chosen) + s(rejected)).

    s = beta log pi / |y|. The loss is convex in s and does not change as all s rise together; sum_y pi(y) = 1 fixes
    that shift, as each pi(y) = exp(|y| s(y) / beta) rises with it, so that the minimum is unique. At gamma 0,
    s = gold + a constant: pi(y) = exp(|y| (gold(y) + c) / beta). Above it differences of s exceed those of gold.
    """

    def loss(score: Floats) -> Contrast:
        return Contrast(line(score, 1, -gamma), line(score, 1), line(score, 0))

    scale = np.broadcast_to(beta / lengths, gold.shape)
    return population_minimum(loss, lengths * gold / beta, gold, log_data, scale, np.zeros_like(gold))


def orpo(gold: Floats, odds_coef: float, log_data: Floats, lengths: Ints) -> Floats:
    """Return ORPO's target (Hong et al., 2024): the minimum of odds_coef softplus(o(rejected) - o(chosen)) - m(chosen).

    m = log pi / |y| and o = m - log(1 - exp(m)). At odds_coef 0 it is fine-tuning on chosen completions by the mean
    over their tokens, least at pi(y) ~ mu(y) E_y'~mu[P(y beats y')] / |y|: nothing but the likelihood of the data is
    in it, and the reference model does not appear.
    """

    def loss(score: Floats) -> Contrast:
        uncertain = -np.expm1(score)  # 1 - P: the log-odds have its inverse for a slope
        odds = Term(score - np.log(uncertain), 1 / uncertain, np.exp(score) / uncertain**2)
        return Contrast(odds, odds, line(score, -1), odds_coef)

    wins = np.stack([expit(row[:, None] - row) @ np.exp(data) for row, data in zip(gold, log_data, strict=True)])
    without_odds = log_data + np.log(wins) - np.log(lengths)
    return population_minimum(
        loss, without_odds, gold, log_data, np.broadcast_to(1 / lengths, gold.shape), np.zeros_like(gold)
    )
