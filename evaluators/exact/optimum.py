"""The best possible policy of an enumerated world, and the frontier of reward against KL.

Arrays are float64 of shape (P, N): P prompts, N completions that are all there are (the leaves). Distributions are
log-probs, each row of which sums to 1 over its leaves; a leaf without mass is -inf. KLs are in nats.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import log_softmax

Floats = NDArray[np.float64]

_WIDEST = 1e8  # a beta this many times the spread of gold is the reference model, and as many times less the limit


def normalised(logits: Floats) -> Floats:
    """Return the log-probs (P, N) proportional to exp(``logits``), row by row; every row has a finite entry."""
    return np.asarray(log_softmax(logits, axis=-1))


def kl(log_p: Floats, log_q: Floats) -> Floats:
    """Return KL(p || q) = sum_y p(y) (log p(y) - log q(y)) of each prompt (P,).

    A leaf where p has no mass adds nothing; one where only q has none makes it infinite.
    """
    mass = np.exp(log_p)
    with np.errstate(invalid="ignore"):
        terms = mass * (log_p - log_q)
    return np.asarray(np.where(mass > 0, terms, 0.0).sum(-1))


def expectation(log_p: Floats, values: Floats) -> Floats:
    """Return E_p[``values``] of each prompt (P,); the values (P, N) are finite."""
    return np.asarray((np.exp(log_p) * values).sum(-1))


def tilted(log_reference: Floats, reward: Floats, beta: float) -> Floats:
    """Return pi*(y) ~ ref(y) exp(reward(y) / beta), the policy with the greatest ``objective``.

    With Z = sum_y ref(y) exp(reward(y) / beta), J(pi) = beta log Z - beta KL(pi || pi*): it is greatest, at
    beta log Z, where the KL is 0, and J(pi*) - J(pi) = beta KL(pi || pi*) for every policy.
    """
    return normalised(log_reference + reward / beta)


def objective(log_policy: Floats, log_reference: Floats, gold: Floats, beta: float) -> Floats:
    """Return J(pi) = E_pi[gold] - beta KL(pi || ref) of each prompt (P,)."""
    return expectation(log_policy, gold) - beta * kl(log_policy, log_reference)


def frontier_reward(log_reference: Floats, gold: Floats, mean_kl: float) -> Floats:
    """Return the expected gold (P,) of the best policy whose KL to the reference, meaned over prompts, is ``mean_kl``.

    Maximising the mean of E[gold] under a bound on the mean KL has one multiplier for all prompts: the best policy is
    ``tilted`` by one beta, and its mean KL falls as beta rises, so that root finding on log beta gives it. Above the
    KL of the limit beta -> 0 (the reference model given that gold is at its greatest), the limit is returned.
    """
    limit = _limit(log_reference, gold)
    if mean_kl >= kl(limit, log_reference).mean():
        return expectation(limit, gold)

    def excess(log_beta: float) -> float:
        return float(kl(tilted(log_reference, gold, math.exp(log_beta)), log_reference).mean()) - mean_kl

    middle, wide = math.log(_spread(log_reference, gold)), math.log(_WIDEST)
    if excess(middle - wide) <= 0:
        return expectation(limit, gold)
    if excess(middle + wide) >= 0:
        return expectation(log_reference, gold)
    log_beta = brentq(excess, middle - wide, middle + wide, xtol=1e-12)
    return expectation(tilted(log_reference, gold, math.exp(log_beta)), gold)


def frontier_curve(log_reference: Floats, gold: Floats, points: int = 61) -> tuple[Floats, Floats]:
    """Return KL and expected gold (``points``,) along the frontier, meaned over prompts.

    The first point is the reference model at KL 0, the last one the limit beta -> 0; between them beta falls
    geometrically from 30 times the spread of gold to a thirtieth of it. The slope of the curve is beta.
    """
    spread = _spread(log_reference, gold)
    betas = np.geomspace(30 * spread, spread / 30, points - 2)
    policies = [log_reference, *(tilted(log_reference, gold, beta) for beta in betas), _limit(log_reference, gold)]
    divergences = [kl(policy, log_reference).mean() for policy in policies]
    return np.array(divergences), np.array([expectation(policy, gold).mean() for policy in policies])


def _limit(log_reference: Floats, gold: Floats) -> Floats:
    """Return the policy that ``tilted`` nears as beta falls to 0."""
    reachable = np.where(np.isneginf(log_reference), -np.inf, gold)
    return normalised(np.where(reachable == reachable.max(-1, keepdims=True), log_reference, -np.inf))


def _spread(log_reference: Floats, gold: Floats) -> float:
    """Return the standard deviation of gold under the reference model, over all prompts; 1 where gold is constant."""
    centred = gold - expectation(log_reference, gold)[:, None]
    return math.sqrt(expectation(log_reference, centred**2).mean()) or 1.0
