"""Hindsight relabelling: samples are told, after the fact, the instruction that they did follow.

Shapes: B completions, T tokens (padded on the right), K grades, worst first. Log-probs are in nats, fp32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import log_softmax

from alignarena.core.contract import NOTHING, Batch, Rows
from alignarena.core.errors import BadInput
from alignarena.methods.parts.advantages import masked
from alignarena.methods.parts.instructions import instructed
from alignarena.methods.parts.losses import Per, Reads


def graded(scored: Rows, grades: int, within_prompt: bool) -> Rows:
    """Add ``grade``: finished completions fall evenly into the grades by their scores, within a prompt or all together.

    A grade begins at a score that occurs: completions of equal score share a grade, the better one of those that they
    straddle, so that scores which are all equal are all of the best. What does not finish is of the worst, 0.
    """
    groups: dict[object, list[int]] = {}
    for place, prompt_id in enumerate(scored["prompt_id"][:]):
        groups.setdefault(prompt_id if within_prompt else None, []).append(place)
    score, stopped, grade = np.asarray(scored["score"][:]), _stopped(scored), np.zeros(len(scored), dtype=int)
    for group in groups.values():
        finished = [place for place in group if stopped[place]]
        ordered = np.sort(score[finished])
        edges = [ordered[len(ordered) * k // grades] for k in range(1, grades) if finished]
        grade[finished] = np.searchsorted(edges, score[finished], side="right")
    return _with(scored, {"grade": grade.tolist()})


def checked(scored: Rows) -> Rows:
    """Add ``grade`` by a checker: 1 for a finished completion that is right, else 0."""
    right = np.asarray(scored["score"][:]) > 0.5
    return _with(scored, {"grade": (right & _stopped(scored)).astype(int).tolist()})


def _stopped(rows: Rows) -> NDArray[np.bool_]:
    return np.array([reason == "stop" for reason in rows["finish_reason"][:]])


def tally(rows: Rows, grades: int) -> dict[str, int]:
    """Return how many rows are of each grade, and how many of the worst did not finish."""
    counted = {f"grade_{k}": rows["grade"][:].count(k) for k in range(grades)}
    return {"unfinished": rows["finish_reason"][:].count("length"), **counted}


def relabelled(rows: Rows, grades: Sequence[str]) -> Rows:
    """Add the prompt under the instruction of every grade, ``prompt_0`` to ``prompt_{K-1}``, and ``sampled_logp``.

    The one of the row's own grade is ``prompt_own``, too.
    """
    told: dict[str, list[object]] = {f"prompt_{k}": instructed(rows, one)["prompt"][:] for k, one in enumerate(grades)}
    own = [told[f"prompt_{grade}"][place] for place, grade in enumerate(rows["grade"][:])]
    return _with(rows, {**told, "prompt_own": own, "sampled_logp": [sum(logps) for logps in rows["logps"][:]]})


def _with(rows: Rows, columns: Mapping[str, Sequence[object]]) -> Rows:
    return Dataset.from_dict({**rows.to_dict(), **columns})


@dataclass(frozen=True)
class HIRLoss:
    """Likelihood under the own instruction, a contrast of instructions, and entropy (arXiv:2302.05206, eq. 4 to 6).

    With l_k the log-prob of a completion under the instruction of grade k and g its own grade:
    ``-l_g + alpha contrast - entropy_coef H``, ``contrast = -(1 - e) log q_g - e / (K - 1) sum_k!=g log q_k``, where
    ``q = softmax(l)`` says which instruction made the completion and e is ``label_smoothing``: least at q_g = 1 - e.

    H is the entropy of completions under the best instruction, which drew the rows. Its gradient at a policy p is
    ``-E_p[(log p - b) gradient of log p]``, whatever the constant b, and is estimated on rows that an earlier policy
    drew, each weighed by p over that policy, at most 1. What stands for -H in the loss has this gradient; its value
    means nothing.
    """

    grades: int = 3
    alpha: float = 1.0
    entropy_coef: float = 0.001
    label_smoothing: float = 0.2

    needs: ClassVar[frozenset[str]] = NOTHING
    columns: ClassVar[frozenset[str]] = frozenset({"grade", "sampled_logp"})
    per: ClassVar[Per] = "token"

    def __post_init__(self) -> None:
        """Check that there is something to contrast.

        Raises:
            BadInput: Fewer than two grades, or a smoothing that would not leave the own instruction the likeliest.
        """
        if self.grades < 2:
            raise BadInput(f"hir: a contrast needs at least 2 grades, got {self.grades}")
        if not 0 <= self.label_smoothing < 1 - 1 / self.grades:
            raise BadInput(f"hir: label_smoothing must be from 0 to below 1 - 1/{self.grades}: {self.label_smoothing}")

    @property
    def reads(self) -> Reads:
        """Return one key a grade, in their order: the completion under that grade's instruction.

        Where likelihood alone counts, the own instruction is all that is computed.
        """
        if not (self.alpha or self.entropy_coef):
            return {"own": ("prompt_own", "completion")}
        return {f"grade_{k}": (f"prompt_{k}", "completion") for k in range(self.grades)}

    def prepare(self, batch: Batch, state: dict[str, float]) -> dict[str, Tensor]:
        """Return ``baseline`` (B,), the mean log-prob at sampling: what a completion's own is held against."""
        sampled = batch.columns["sampled_logp"]
        return {"baseline": sampled.mean().expand(len(sampled))}

    def __call__(self, outputs: Mapping[str, Tensor], batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the loss of each completion (B,), summed over tokens; each output is log-probs (B, T)."""
        logps = torch.stack([masked(outputs[key], batch.mask[key]).sum(1) for key in self.reads], 1)
        grade, tokens = batch.columns["grade"].long(), next(iter(batch.mask.values())).sum(1)
        own = {"best": (grade == self.grades - 1).to(logps.dtype)}
        if logps.shape[1] == 1:
            loss = nll = -logps[:, 0]
        else:
            nll, contrast = -logps.gather(1, grade[:, None])[:, 0], self._contrast(logps, grade)
            loss = nll + self.alpha * contrast + self.entropy_coef * self._neg_entropy(logps[:, -1], batch)
            own |= {"contrast": contrast, "accuracy": (logps.argmax(1) == grade).to(logps.dtype)}
        # the trainer divides by tokens: these are means over tokens, and the two below are nats a token
        metrics = {name: value * tokens for name, value in own.items()}
        metrics |= {"nll": nll, "entropy": -batch.columns["sampled_logp"]}
        return loss, {name: value.detach() for name, value in metrics.items()}

    def _contrast(self, logps: Tensor, grade: Tensor) -> Tensor:
        """Return the smoothed cross-entropy (B,) of instructions given the completion, all equally likely before."""
        log_q = log_softmax(logps, 1)
        own = log_q.gather(1, grade[:, None])[:, 0]
        others = (log_q.sum(1) - own) / (self.grades - 1)
        return -(1 - self.label_smoothing) * own - self.label_smoothing * others

    def _neg_entropy(self, best: Tensor, batch: Batch) -> Tensor:
        """Return a surrogate (B,) of minus the entropy, from log-probs (B,) under the best instruction."""
        now = best.detach()
        weight = (now - batch.columns["sampled_logp"]).exp().clamp(max=1)
        surrogate: Tensor = weight * (now - batch.prepared["baseline"]) * best
        return surrogate
