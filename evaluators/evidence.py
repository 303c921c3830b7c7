"""What evaluators look at, and what they give: one number a completion and metric."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from alignarena.core.contract import Judge, Lab, Policy, Rows, Scorer, TrainablePolicy

Row = Mapping[str, Any]
Measures = dict[str, float | None]


class Evidence(Protocol):
    """What an evaluator may look at: one cell's completions, and what they are compared with, made when first read."""

    @property
    def rows(self) -> Rows:
        """Sampled rows of the policy."""
        ...

    @property
    def lab(self) -> Lab:
        """The lab of the evaluation: metered apart, charged to no method."""
        ...

    @property
    def baseline(self) -> Rows:
        """Sampled rows of the SFT policy for the same prompts and samples."""
        ...

    @property
    def policy(self) -> Policy:
        """The policy that sampled the rows."""
        ...

    @property
    def reference(self) -> TrainablePolicy:
        """The SFT policy."""
        ...

    @property
    def proxy(self) -> Scorer:
        """The reward model that methods optimised."""
        ...

    @property
    def judge(self) -> Scorer:
        """The scorer whose scores decide wins."""
        ...

    @property
    def heldout_reward(self) -> Scorer:
        """A reward model of preferences that no method was given."""
        ...

    @property
    def labeler(self) -> Judge | Scorer:
        """The AI labeler, as a judge."""
        ...

    @property
    def lineage(self) -> frozenset[str]:
        """The root scorers and writers of what the policy was trained on."""
        ...

    @property
    def heldout(self) -> Mapping[str, Rows]:
        """Pairs of people by axis that nothing was trained on."""
        ...

    @property
    def exact(self) -> Iterable[tuple[Row, Measures]]:
        """What is known exactly of the policy, prompt by prompt, in a world whose completions are enumerated."""
        ...
