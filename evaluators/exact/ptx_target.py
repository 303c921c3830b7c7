"""The own target, as in ``targets``, of PPO-ptx: reward and KL beside the likelihood of demonstrations."""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq
from scipy.special import logsumexp, wrightomega

from alignarena.evaluators.exact.leaves import Floats
from alignarena.evaluators.exact.optimum import normalised


def ppo_ptx(
    log_reference: Floats, reward: Floats, kl_coef: float, ptx_coef: float, log_demonstrations: Floats
) -> Floats:
    """Return the policy with the greatest E_pi[reward] - kl_coef KL(pi || ref) + ptx_coef E_d[log pi] (InstructGPT).

    d is the distribution of demonstrations (P, N). With the multiplier m of sum_y pi(y) = 1 the derivative by pi(y) is
    0 where reward - kl_coef (log(pi / ref) + 1) + ptx_coef d / pi = m. For u = ptx_coef d / (kl_coef pi) that says
    u + log u = log(ptx_coef d / (kl_coef ref)) + 1 + (m - reward) / kl_coef, solved by u = omega(right side), omega
    being Wright's function, and pi = ref exp((reward - m) / kl_coef - 1 + u). The masses sum to less as m rises, to 1
    or more at m0 = kl_coef (log sum_y ref exp(reward / kl_coef) - 1), as u >= 0. The mean of the derivative over pi
    says m = J(pi) - kl_coef + ptx_coef with J <= kl_coef (that log sum): so m is between m0 and m0 + ptx_coef.
    """
    rows = zip(log_reference, reward / kl_coef, log_demonstrations, strict=True)
    return np.stack([_of_prompt(*row, np.log(ptx_coef / kl_coef)) for row in rows])


def _of_prompt(log_reference: Floats, reward: Floats, log_demonstrations: Floats, log_weight: float) -> Floats:
    """Return one prompt's target (N,); the reward, the multiplier and the weight are in units of kl_coef."""
    least = logsumexp(log_reference + reward) - 1

    def log_policy(multiplier: float) -> Floats:
        plain = log_reference + reward - multiplier - 1
        return np.asarray(plain + wrightomega(log_weight + log_demonstrations - plain))

    def excess(multiplier: float) -> float:
        return float(logsumexp(log_policy(multiplier)))

    multiplier = brentq(excess, least, least + np.exp(log_weight), xtol=1e-13)
    return normalised(log_policy(multiplier))
