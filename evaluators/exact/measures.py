"""How far an enumerated policy is from the optimum and from its method's own target; arrays as in ``optimum``."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from alignarena.evaluators.exact.optimum import Floats, expectation, frontier_reward, kl, objective, tilted

_UNMOVED = 1e-6  # nats: a KL that log-probs in fp32 give two equal policies


def measures(
    log_policy: Floats, log_reference: Floats, gold: Floats, beta: float, log_target: Floats | None = None
) -> dict[str, Floats]:
    """Return every exact measure of a policy, each (P,).

    ``exact_frontier_reward`` is the reward of the best policy at the same KL meaned over prompts. With the method's own
    target there are four more: ``exact_objective_bias`` KL(pi* || target) is what a correct implementation still
    lacks, ``exact_learning_error`` KL(target || pi) what this one lacks of its target, ``exact_target_kl``
    KL(target || ref) its scale, and ``exact_objective_target`` the J of the target. A target without mass where the
    optimum has some (a hard filter; a method that drops unfinished completions) has an objective bias of ``np.inf``;
    likewise the others, by the same rule of ``kl``.

    Args:
        log_policy: pi (P, N).
        log_reference: The reference model (P, N).
        gold: The hidden reward (P, N).
        beta: Strength at which the optimum pi* ~ ref exp(gold / beta) is defined.
        log_target: What the method would learn at its best (P, N), if known.
    """
    optimum = tilted(log_reference, gold, beta)
    divergence, reference_reward = kl(log_policy, log_reference), expectation(log_reference, gold)
    found = {
        "gold": expectation(log_policy, gold),
        "kl": divergence,
        "exact_objective": objective(log_policy, log_reference, gold, beta),
        "exact_objective_reference": reference_reward,
        "exact_objective_optimum": objective(optimum, log_reference, gold, beta),
        "exact_reference_reward": reference_reward,
        "exact_frontier_reward": frontier_reward(log_reference, gold, float(divergence.mean())),
        "exact_kl_from_optimum": kl(optimum, log_policy),
    }
    if log_target is not None:
        found["exact_objective_bias"] = kl(optimum, log_target)
        found["exact_learning_error"] = kl(log_target, log_policy)
        found["exact_target_kl"] = kl(log_target, log_reference)
        found["exact_objective_target"] = objective(log_target, log_reference, gold, beta)
    return found


def summary(measured: Mapping[str, Floats]) -> dict[str, float]:
    """Return the means over prompts, and two ratios of them.

    ``j_efficiency`` = (J - J_ref) / (J* - J_ref): 1 at the optimum, 0 at the reference model, below 0 for a policy not
    worth its KL. ``frontier_efficiency`` = (reward - ref reward) / (frontier reward - ref reward): the share of the
    reward to be had at the policy's own KL; NaN for a policy that has not moved. It cannot see a wrong strength: the
    optimum of another beta is on the frontier too.
    """
    means = {name: float(np.mean(values)) for name, values in measured.items()}
    start = means["exact_objective_reference"]
    lowest, moved = means["exact_reference_reward"], means["kl"] > _UNMOVED
    means["j_efficiency"] = _ratio(means["exact_objective"] - start, means["exact_objective_optimum"] - start)
    means["frontier_efficiency"] = (
        _ratio(means["gold"] - lowest, means["exact_frontier_reward"] - lowest) if moved else float("nan")
    )
    return means


def _ratio(numerator: float, denominator: float) -> float:
    """Return their ratio; NaN where there is nothing to gain."""
    return numerator / denominator if denominator > 0 else float("nan")
