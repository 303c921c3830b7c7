"""Each method's own target: the policy a correct implementation nears with exact, unlimited feedback.

The targets differ from the optimum because the objectives do. They are tabular: what a policy free to put any mass on
any leaf would learn, prompt by prompt. Arrays as in ``optimum``; ``log_data`` (P, N) is the distribution that both
completions of a preference pair are drawn from, independently, and has mass wherever the reference model has. A pair
is labelled by P(y beats y') = sigmoid(gold(y) - gold(y')).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import binom

from alignarena.evaluators.exact.optimum import Floats, normalised
from alignarena.evaluators.exact.population import Contrast, line, population_minimum


def best_of_n(log_reference: Floats, score: Floats, n: int) -> Floats:
    """Return best-of-n: the best-scored of n draws from the reference model.

    All n draws score at most v with probability F(v)^n, and all less with F(v-)^n: the best scores v with probability
    F(v)^n - F(v-)^n. Ties are broken at random between draws, so leaves of equal score share it in proportion to the
    reference model.
    """
    return rejection_sampling(log_reference, score, n, 1, np.ones(score.shape[1], dtype=bool))


def rejection_sampling(
    log_reference: Floats, score: Floats, n: int, rounds: int, finished: NDArray[np.bool_]
) -> Floats:
    """Return rejection-sampling fine-tuning: the maximum-likelihood policy of the best of n, ``rounds`` times over.

    A round draws n from the policy, drops those that are not ``finished`` (N,), and keeps the best of what is left.
    A draw is finished with probability q, and an unfinished one never wins, so with F the share of the finished mass
    that scores at most v, P(best = v | any is finished) = ((1 - q + q F(v))^n - (1 - q + q F(v-))^n) / (1 - (1 - q)^n).
    The next policy is this distribution. A prompt whose draws never finish gives no sample and keeps its policy.
    """
    policy = normalised(log_reference)
    for _ in range(rounds):
        policy = np.stack([_best(row, scores, n, finished) for row, scores in zip(policy, score, strict=True)])
    return policy


def ipo(log_reference: Floats, gold: Floats, beta: float, log_data: Floats) -> Floats:
    """Return IPO's target ~ ref(y) exp(P(y beats mu) / beta), mu being the data (Azar et al., 2023).

    With h = log pi / ref, the loss is E[(h(winner) - h(loser) - 1 / (2 beta))^2]; its mean over labels differs by a
    constant from (h(y) - h(y') - (2 P(y beats y') - 1) / (2 beta))^2. Setting the derivative by h(y) to 0, as y' ~ mu
    whatever y is: h(y) = E_y'[P(y beats y')] / beta + a constant.
    """
    wins = [expit(values[:, None] - values[None]) @ np.exp(row) for values, row in zip(gold, log_data, strict=True)]
    return normalised(log_reference + np.stack(wins) / beta)


def cpl(gold: Floats, alpha: float) -> Floats:
    """Return plain CPL's target at bias 1, ~ exp(gold(y) / alpha): there is no reference model in it.

    The loss is the cross-entropy of sigmoid(alpha (log pi(y) - log pi(y'))) with sigmoid(gold(y) - gold(y')), least
    where the two gaps agree on every pair. With log pi - log ref in place of log pi (CPL-KL) it is DPO's, and the
    target the optimum at beta = alpha.
    """
    return normalised(gold / alpha)


def cpl_biased(
    log_reference: Floats, gold: Floats, alpha: float, bias: float, log_data: Floats, to_reference: bool
) -> Floats:
    """Return CPL's target for any bias in (0, 1]: the minimum of softplus(bias s(rejected) - s(chosen)).

    s = alpha log pi, or alpha (log pi - log ref) with ``to_reference``. It has no closed form below 1. The loss is
    convex in s and falls as all s rise together, so that sum_y exp(log pi(y)) <= 1 binds and the minimum is unique:
    pi(y) ~ mu(y) E_y'~mu[p sigmoid(bias s' - s) - bias (1 - p) sigmoid(bias s - s')], p = P(y beats y'). The factor of
    mu(y) is bounded: such a policy keeps near its data however small alpha is.
    """
    offset = -alpha * log_reference if to_reference else np.zeros_like(log_reference)

    def loss(score: Floats) -> Contrast:
        return Contrast(line(score, 1), line(score, bias), line(score, 0))

    return population_minimum(loss, log_reference, gold, log_data, np.full_like(log_reference, alpha), offset)


def preferred(gold: Floats, log_data: Floats) -> Floats:
    """Return the target of imitating the preferred completion of pairs: what wins a comparison of two draws.

    A pair of different completions y, y' ~ mu is won by y with P(y beats y'), so that maximum likelihood learns
    pi(y) ~ mu(y) sum_{y' != y} mu(y') P(y beats y'). It is between mu and twice mu: imitation of winners alone leads
    no further from the data, however many there are.
    """
    data = np.exp(log_data)
    wins = [expit(values[:, None] - values[None]) @ row - row / 2 for values, row in zip(gold, data, strict=True)]
    return normalised(log_data + np.log(np.stack(wins)))


def shares_below(score: Floats, log_policy: Floats, sampled: Floats) -> Floats:
    """Return the share of samples that score at most each ``score``, in its shape.

    Args:
        score: What is asked for.
        log_policy: What the samples are drawn from (P, N), all prompts alike.
        sampled: Their scores (P, N); one of -inf is no sample.
    """
    counted = np.isfinite(sampled)
    order = np.argsort(sampled[counted])
    mass = np.concatenate([[0.0], np.cumsum(np.exp(log_policy)[counted][order])])
    places = np.searchsorted(sampled[counted][order], score, side="right")
    return np.asarray(mass[places] / mass[-1])


def rest_filter(log_reference: Floats, score: Floats, thresholds: Sequence[float], grow_steps: int = 1) -> Floats:
    """Return ReST's target, trained by likelihood (Gulcehre et al., 2023): samples conditional on score > tau.

    An improve step minimises E_D[1(score > tau) (-log pi(y))] over the D of its grow step, least at D conditional on
    score > tau, whichever policy it starts from: of rising thresholds the last one counts. A prompt of which a
    threshold leaves nothing has no loss in that step and keeps the policy of the one before. D is drawn from the
    policy (at temperature 1) anew in each grow step, without the original data set; then a repeated filter changes
    nothing, and grow steps matter only where thresholds starve a prompt. A score of -inf leaves a leaf out.
    """
    policy = normalised(log_reference)
    for _ in range(grow_steps):
        drawn = policy
        for threshold in thresholds:
            policy = _conditional(drawn, score > threshold, otherwise=policy)
    return policy


def hir_posterior(log_reference: Floats, score: Floats, edges: Sequence[float], grade: int) -> Floats:
    """Return HIR's target under the instruction of one grade: the reference model conditional on that grade.

    Samples are relabelled by the grade they earned, ``np.digitize(score, edges)``, so the likelihood term learns
    P(y | x, grade) = ref(y | x) P(grade | y, x) / P(grade | x), where P(grade | y, x) is 0 or 1. Later rounds sample
    this posterior, which is in proportion to the reference model within the grade, and leave it as it is. The contrast
    and entropy terms and label smoothing are left out: they move the target. A prompt on which the grade is never
    earned keeps the reference model.
    """
    reference = normalised(log_reference)
    return _conditional(reference, np.digitize(score, np.asarray(edges)) == grade, otherwise=reference)


def hir(
    log_start: Floats, score: Floats, grades: int, rounds: int, replay: bool, sampled: NDArray[np.bool_]
) -> Floats:
    """Return HIR's target under its best instruction, ``rounds`` times over, its grades being even shares of samples.

    A round draws from the policy under the best instruction, and ``hir_posterior`` says what it learns; the best grade
    begins at the score v with F(v) > 1 - 1 / ``grades`` first, F over the draws of all ``sampled`` (P,) prompts, with
    ``replay`` those of all rounds. The contrast of instructions without smoothing moves nothing: at the posterior no
    completion is possible under two instructions, so it is 0, its least. A prompt that never earns the best grade is
    said to keep its policy; the contrast has nothing to say of it either but what to avoid.

    Args:
        log_start: The first policy that is sampled (P, N): the start under the best instruction.
        score: What completions are graded by (P, N); -inf for one that is never graded better than worst.
        grades: How many there are.
        rounds: How often the policy is sampled and trained.
        replay: Whether the samples of earlier rounds stay.
        sampled: Which prompts are sampled.
    """
    policies = [normalised(log_start)]
    for _ in range(rounds):
        kept = np.stack(policies if replay else policies[-1:])
        drawn = np.logaddexp.reduce(kept) - np.log(len(kept))
        best = score >= _quantile(drawn[sampled], score[sampled], 1 - 1 / grades)
        policies.append(_conditional(drawn, best, otherwise=policies[-1]))
    return policies[-1]


def hir_within_prompts(
    log_start: Floats, score: Floats, grades: int, n: int, rounds: int, finished: NDArray[np.bool_]
) -> Floats:
    """Return HIR's target by likelihood alone where a prompt's own n samples are graded, ``rounds`` times over.

    Of M finished samples the best grade begins at the score of rank m = floor(M (grades - 1) / grades), counted from 0
    and from below, so y is of it if at least m of the others score no more: with q the finished mass and F the share
    of it that scores at most y's, P(best | y) = sum_M Bin(M - 1; n - 1, q) P(Bin(M - 1, F) >= m), and the next policy
    is in proportion to pi(y) P(best | y). A grade is not certain then, and the contrast moves the target: not stated.

    Args:
        log_start: The first policy that is sampled (P, N).
        score: What completions are graded by (P, N).
        grades: How many there are.
        n: Samples of a prompt.
        rounds: How often the latest policy is sampled and trained, without the samples of earlier rounds.
        finished: Which leaves are (N,).
    """
    policy = normalised(log_start)
    others = np.arange(n)  # finished ones, beside y
    least = (others + 1) * (grades - 1) // grades
    for _ in range(rounds):
        mass = np.where(finished, np.exp(policy), 0.0)
        total = mass.sum(1, keepdims=True)
        passed = np.stack([_at_most(*row) for row in zip(mass, score, strict=True)]) / total
        tails = binom.sf(least - 1, others, np.minimum(passed, 1.0)[..., None])  # (P, N, n)
        best = (tails * binom.pmf(others, n - 1, np.minimum(total, 1.0))[:, None]).sum(2)
        with np.errstate(divide="ignore"):
            policy = normalised(np.where(finished, policy + np.log(best), -np.inf))
    return policy


def revision(log_policy: Floats, kernel: Sequence[Any], weights: Sequence[float]) -> Floats:
    """Return the target of fine-tuning on revisions (Constitutional AI): the policy pushed through the reviser.

    With K(y, y') the probability that the reviser turns y into y', the k-th revision is distributed as pi K^k, and
    maximum likelihood on a mix of them gives sum_k w_k pi K^k.

    Args:
        log_policy: What draws the first completion (P, N).
        kernel: K of each prompt, P of them, (N, N) arrays or scipy sparse matrices, rows summing to 1.
        weights: Share of the k-th revision in the data, k = 1, 2, ...; the unrevised completions are not in it.
    """
    return np.stack([_pushed(row, each, weights) for row, each in zip(np.exp(log_policy), kernel, strict=True)])


def _best(log_policy: Floats, score: Floats, n: int, finished: NDArray[np.bool_]) -> Floats:
    """Return one prompt's distribution (N,) of the best finished one of n draws, in logs throughout.

    With A the probability that a draw is unfinished or scores at most v, and m that it scores v and is finished,
    A^n - (A - m)^n = A^n (1 - (1 - m / A)^n): no difference of near numbers, no underflow after many rounds.
    """
    kept = finished & np.isfinite(log_policy)
    if not kept.any():
        return log_policy
    levels, level = np.unique(score[kept], return_inverse=True)
    mass = np.full(len(levels), -np.inf)
    np.logaddexp.at(mass, level, log_policy[kept])
    below = np.logaddexp.reduce(log_policy[~kept], initial=-np.inf)
    at_most = np.logaddexp.accumulate(np.concatenate([[below], mass]))[1:]
    wins = n * at_most + _log_any(np.minimum(mass - at_most, 0), n)
    best = np.full_like(log_policy, -np.inf)
    best[kept] = (wins - mass)[level] + log_policy[kept]
    return normalised(best)


def _log_any(log_share: Floats, n: int) -> Floats:
    """Return log(1 - (1 - exp(``log_share``))^n)."""
    share = np.exp(log_share)
    with np.errstate(divide="ignore"):  # a share of 1 is certain
        exact = np.log(-np.expm1(n * np.log1p(-share)))
    return np.asarray(np.where(log_share < -30, np.log(n) + log_share, exact))  # the first term of the series


def _at_most(mass: Floats, score: Floats) -> Floats:
    """Return the mass (N,) that scores at most what each leaf does."""
    levels, level = np.unique(score, return_inverse=True)
    of_level = np.cumsum(np.bincount(level, mass, minlength=len(levels)))
    return np.asarray(of_level[level])


def _quantile(log_policy: Floats, score: Floats, share: float) -> float:
    """Return the least score v with P(score <= v) > ``share``, all prompts alike; a score of -inf is left out."""
    counted = np.isfinite(score)
    values, mass = score[counted], np.exp(log_policy)[counted]
    order = np.argsort(values)
    cumulative = np.cumsum(mass[order])
    return float(values[order][np.searchsorted(cumulative, share * cumulative[-1], side="right")])


def _conditional(log_policy: Floats, kept: NDArray[np.bool_], otherwise: Floats) -> Floats:
    """Return the policy given that its draw is ``kept`` (P, N), and where none ever is, the row of another."""
    rest = np.where(kept, log_policy, -np.inf)
    empty = np.isneginf(rest).all(-1, keepdims=True)
    return normalised(np.where(empty, otherwise, rest))


def _pushed(policy: Floats, kernel: Any, weights: Sequence[float]) -> Floats:
    """Return the log-probs (N,) of the weighted revisions of one prompt's policy, given as probabilities."""
    mixed = np.zeros_like(policy)
    for weight in weights:
        policy = policy @ kernel
        mixed += weight * policy
    with np.errstate(divide="ignore"):
        return normalised(np.log(mixed))
