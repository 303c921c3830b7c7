"""KL(policy || reference) in nats from the policy's own samples: k1, k3 (Schulman, 2020) and summed exactly per prefix.

All three have the KL as their mean. k1 scatters most and may be negative; k3 never is, but is heavy-tailed where the
reference gives a sample much more than the policy; the exact one needs both distributions at every prefix and scatters
least (Rao-Blackwell). They hold on samples at temperature 1 by the same stop rule; on other data they mean something
else, and clamping a token's k1 at 0 would bias it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import log_softmax

from alignarena.results.resampling import Floats


def k1(logps: ArrayLike, reference_logps: ArrayLike) -> Floats:
    """Return log policy - log reference, of tokens (..., T), or of whole completions if given their sums (...)."""
    return np.asarray(np.asarray(logps, dtype=float) - np.asarray(reference_logps, dtype=float))


def k3(logps: ArrayLike, reference_logps: ArrayLike) -> Floats:
    """Return r - 1 - log r with r = reference / policy, of tokens (..., T) or of whole completions (...)."""
    logratio = k1(logps, reference_logps)
    return np.expm1(-logratio) + logratio


def exact_per_prefix(logits: ArrayLike, reference_logits: ArrayLike) -> Floats:
    """Return sum_v policy(v) (log policy(v) - log reference(v)) at every prefix (..., T).

    Args:
        logits: Of the policy (..., T, V), not necessarily normalised; -inf where a token cannot be drawn.
        reference_logits: Of the reference model (..., T, V).

    Returns:
        Nats; infinite where the policy may draw what the reference never does.
    """
    policy = log_softmax(np.asarray(logits, dtype=float), axis=-1)
    reference = log_softmax(np.asarray(reference_logits, dtype=float), axis=-1)
    drawn = np.isfinite(policy)
    ratios = np.where(drawn, policy, 0.0) - np.where(drawn, reference, 0.0)
    return np.asarray((np.exp(policy) * ratios).sum(axis=-1))


def per_sequence(tokens: ArrayLike, mask: ArrayLike) -> Floats:
    """Return the sum over a completion's tokens (...) of a per-token estimate (..., T); the mask is 1 on its tokens.

    Of k3 this is the sum of the tokens' k3, which has the same mean as the k3 of the whole completion and a lighter
    tail.
    """
    return np.asarray(np.where(np.asarray(mask, dtype=bool), np.asarray(tokens, dtype=float), 0.0).sum(axis=-1))


def per_token(tokens: ArrayLike, mask: ArrayLike) -> float:
    """Return the mean over all tokens of all completions: total KL over total length, so that long ones weigh more."""
    return float(per_sequence(tokens, mask).sum() / np.asarray(mask, dtype=float).sum())
