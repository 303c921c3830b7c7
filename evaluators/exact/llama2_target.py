"""What Llama 2's recipe converges to: the best of all versions' draws, then PPO on whitened scores.

Arrays as in ``optimum``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from alignarena.core.errors import RunFailed
from alignarena.core.feedback import UNSAFE_BELOW
from alignarena.evaluators.exact.optimum import Floats, normalised, tilted

_STEPS, _SETTLED = 10_000, 1e-9  # of a search for a fixed point: when no probability moves further


def piecewise(helpful: Floats, harmless: Floats) -> Floats:
    """Return the score (P, N) of prompts that do not ask for harm: harmless where that is unsafe, else helpful."""
    return np.where(harmless < UNSAFE_BELOW, harmless, helpful)


def best_of_versions(
    log_reference: Floats, score: Floats, n: int, versions: int, finished: NDArray[np.bool_]
) -> Floats:
    """Return the last version: the maximum-likelihood policy of the best of the draws of all versions' policies.

    Each version draws n from the policy before it, and drops those that are not ``finished`` (N,). With A_r(v) the
    probability that a draw of r is unfinished or scores at most v, nothing better than v is ever drawn with probability
    B(v) = prod_r A_r(v)^n, and the best scores v with probability B(v) - B(v-), in proportion, as B is above 0 below
    the least score: no draw may finish. What a version's fit starts from does not matter. Scores of finished leaves
    are taken to differ, which makes the best one leaf.
    """
    policies = [normalised(log_reference)]
    for _ in range(versions):
        drawn = np.stack(policies, axis=1)
        policies.append(np.stack([_best(rows, one, n, finished) for rows, one in zip(drawn, score, strict=True)]))
    return policies[-1]


def whitened(log_reference: Floats, score: Floats, penalty: Floats, strength: float, asked: int) -> Floats:
    """Return what PPO nears on scores whitened over its own samples: ~ ref exp((score / s - penalty) / strength).

    The mean that whitening takes off is lost in the normalisation, and s is the deviation of the scores under the very
    policy that they lead to, over all prompts: a fixed point, neared from the deviation under the reference model as
    training does. As the policy narrows, so does s, and the KL holds it ever less; what keeps s up is that the best
    scores of prompts differ.

    Args:
        log_reference: Where PPO starts (P, N).
        score: What is whitened (P, N).
        penalty: What is taken off the whitened score (N,), of a completion that does not finish.
        strength: The weight of the KL.
        asked: How many of the prompts are sampled in training: the first ones.

    Raises:
        RunFailed: The deviation does not settle.
    """
    policy = normalised(log_reference)
    for _ in range(_STEPS):
        mass, of_asked = np.exp(policy[:asked]) / asked, score[:asked]
        spread = float(np.sqrt((mass * (of_asked - (mass * of_asked).sum()) ** 2).sum()))
        before, policy = policy, tilted(log_reference, score / spread - penalty, strength)
        if np.abs(np.exp(policy) - np.exp(before)).max() < _SETTLED:
            return policy
    raise RunFailed(f"the deviation of whitened scores does not settle in {_STEPS} steps")


def _best(log_policies: Floats, score: Floats, n: int, finished: NDArray[np.bool_]) -> Floats:
    """Return one prompt's distribution (N,) of the best finished draw of n from each policy (R, N)."""
    kept = np.flatnonzero(finished)
    order = kept[np.argsort(score[kept])]
    unfinished = np.logaddexp.reduce(log_policies[:, ~finished], axis=1, initial=-np.inf)[:, None]
    at_most = np.logaddexp.accumulate(np.concatenate([unfinished, log_policies[:, order]], 1), axis=1)
    nothing_better = n * at_most.sum(0)
    rises = np.diff(np.exp(nothing_better - nothing_better[-1]))
    best = np.full(score.shape, -np.inf)
    with np.errstate(divide="ignore"):
        best[order] = np.log(rises)
    return normalised(best)
