"""From what a labeler answers to labels: probabilities over verdicts into a preference or a score.

Distributions are arrays (..., V) over V verdicts from worst to best, as Lee et al. (2023; arXiv:2309.00267) read them
off a language model: renormalised over the verdicts, so that no text is parsed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignarena.core.errors import BadInput

Floats = NDArray[np.float64]


def renormalised(logps: Floats) -> Floats:
    """Return the distribution (..., V) over the verdicts of log-probs (..., V) in nats."""
    weights = np.exp(logps - logps.max(-1, keepdims=True))
    return np.asarray(weights / weights.sum(-1, keepdims=True))


def expected_score(distribution: Floats) -> Floats:
    """Return the mean verdict (...), verdicts standing evenly from -1 for the worst to 1 for the best.

    Of the grades 1 to 10 that is ``(s - 1) / 4.5 - 1`` with s the mean grade; of two verdicts, the difference of their
    probabilities. A model that cannot tell is at 0.
    """
    return np.asarray(distribution @ np.linspace(-1.0, 1.0, distribution.shape[-1]))


def swap_averaged(first: Floats, swapped: Floats) -> Floats:
    """Return the probability that the first is preferred, without its place: ``(first + 1 - swapped) / 2``.

    Args:
        first: That what stands first is preferred, in the order given.
        swapped: The same with the other one first.
    """
    return np.asarray((first + 1.0 - swapped) / 2.0)


def beats(first: Floats, second: Floats) -> Floats:
    """Return the probability (...) that a verdict drawn for the first is above one for the second, given they differ.

    Of two verdicts it is the sigmoid of the difference of their log-odds. Where they never differ, it is 1/2.
    """
    below = np.cumsum(second, -1) - second, np.cumsum(first, -1) - first
    wins, losses = (first * below[0]).sum(-1), (second * below[1]).sum(-1)
    differ = wins + losses
    return np.where(differ > 0, wins / np.where(differ > 0, differ, 1.0), 0.5)


def preference(probability: float) -> dict[str, Any]:
    """Return the columns of two completions that a labeler compared, given that it prefers the first so probably.

    The margin is how far from even it is: 0 for a tie, 1 for a certainty.
    """
    ranks = [1, 1] if probability == 0.5 else [1, 2] if probability > 0.5 else [2, 1]
    return {"ranks": ranks, "margins": [abs(2 * probability - 1)], "probability": probability}


def check_pairs(completions: list[list[str]]) -> None:
    """Check that every row has two completions.

    Raises:
        BadInput: One has not.
    """
    wrong = next((len(one) for one in completions if len(one) != 2), None)
    if wrong is not None:
        raise BadInput(f"a labeler compares two completions at a time, not {wrong}; sample 2 for each prompt")
