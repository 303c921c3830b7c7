"""A reward model held out from training: other prompts, other labels, another class of model than the methods optimise.

Bradley and Terry's (1952) model, linear in frozen embeddings: ``P(a > b) = sigma(w (e(a) - e(b)))``, e the mean final
hidden state of the base model over a completion. Fitted by scikit-learn's logistic regression, without an intercept, so
that a and b may change places; its penalty is chosen by cross-validation over clusters of prompts.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from alignarena.core.contract import Lab, Rows, TrainablePolicy
from alignarena.core.errors import RunFailed
from alignarena.core.lineage import roots

Floats = NDArray[np.float64]
_PENALTIES = tuple(10.0 ** np.arange(-4, 2))  # scikit-learn's C: small holds the weights down
_FOLDS = 5


@dataclass(frozen=True)
class LinearRewardModel:
    """A scorer in log-odds: the difference of two scores is that of a preference."""

    encoder: TrainablePolicy
    weights: tuple[float, ...]  # (D,)
    lineage: frozenset[str]

    def score(self, rows: Rows, lab: Lab) -> list[float]:
        """Return one score a row."""
        return [float(one) for one in _embeddings(self.encoder, rows, lab) @ np.array(self.weights)]


def linear_reward_model(encoder: TrainablePolicy, preferences: Rows, lab: Lab) -> LinearRewardModel:
    """Fit the model to all strict pairs of some rankings.

    Args:
        encoder: Whose hidden states are read; it is not trained.
        preferences: Rankings, with ``cluster``.
        lab: Embeds.

    Raises:
        RunFailed: Every ranking is tied.
    """
    differences, clusters = _differences(encoder, preferences, lab)
    scale = differences.std(0)
    scale[scale == 0] = 1.0
    weights = _fit(differences / scale, clusters) / scale
    return LinearRewardModel(encoder, tuple(map(float, weights)), roots(preferences))


def _differences(encoder: TrainablePolicy, preferences: Rows, lab: Lab) -> tuple[Floats, list[str]]:
    """Return the embedding of the preferred completion less that of the other one (N, D), and the cluster of each."""
    ranked = preferences.to_list()
    embedded = iter(_embeddings(encoder, Dataset.from_list([one for row in ranked for one in _singles(row)]), lab))
    found, clusters = [], []
    for row in ranked:
        own = [next(embedded) for _ in row["completions"]]
        for i, j in combinations(range(len(own)), 2):
            if row["ranks"][i] != row["ranks"][j]:
                found.append(own[i] - own[j] if row["ranks"][i] < row["ranks"][j] else own[j] - own[i])
                clusters.append(str(row["cluster"]))
    if not found:
        raise RunFailed(f"held-out reward model: all completions of each of {len(ranked)} prompts are tied")
    return np.array(found), clusters


def _fit(differences: Floats, clusters: list[str]) -> Floats:
    """Return the weights (D,): each pair counts once in either order, for a classifier wants two classes."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, GroupKFold

    features = np.concatenate([differences, -differences])
    preferred, groups = np.repeat([True, False], len(differences)), [*clusters, *clusters]
    model: Any = LogisticRegression(C=_PENALTIES[0], fit_intercept=False, max_iter=500)
    folds = min(_FOLDS, len(set(clusters)))
    if folds > 1:  # of one cluster nothing can be held out to choose by
        cuts = list(GroupKFold(folds).split(features, preferred, groups))
        model = GridSearchCV(model, {"C": _PENALTIES}, scoring=_log_likelihood, cv=cuts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of the loosest penalties, which are not chosen then
        model.fit(features, preferred)
    return np.asarray(getattr(model, "best_estimator_", model).coef_[0], float)


def _log_likelihood(model: Any, features: Floats, preferred: Floats) -> float:
    margins = model.decision_function(features) * np.where(preferred, 1.0, -1.0)
    return -float(np.logaddexp(0.0, -margins).mean())


def _embeddings(encoder: TrainablePolicy, rows: Rows, lab: Lab) -> Floats:
    return np.array(lab.embed(encoder, rows)["embedding"][:], float)


def _singles(row: dict[str, Any]) -> list[dict[str, Any]]:
    ids = row.get("completions_ids") or [None] * len(row["completions"])
    return [
        {"prompt_id": row["prompt_id"], "prompt": row["prompt"], "completion": text}
        | ({"completion_ids": one} if one is not None else {})
        for text, one in zip(row["completions"], ids, strict=True)
    ]
