"""Experience: where the rows of a fit come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from alignarena.core.contract import Lab, Policy, PreferenceStream, Rows, Scorer
from alignarena.methods.parts.rows import pairs


class Feedback(Protocol):
    """Turns sampled rows into the rows a loss reads: a frozen dataclass, so that its content has a digest."""

    def rows(self, sampled: Rows, lab: Lab) -> Rows:
        """Return the rows with feedback."""
        ...


@dataclass(frozen=True)
class Fixed:
    """Offline experience: the same rows whatever the policy does."""

    data: Rows
    phases: int = 1
    value_start: Scorer | None = None

    @property
    def soft(self) -> bool:
        """Whether its pairs say how probable each preference is."""
        return "probability" in self.data.column_names

    def rows(self, phase: int, policy: Policy, lab: Lab) -> Rows:
        """Return all rows."""
        return self.data


@dataclass(frozen=True)
class Stream:
    """Pairs without end, each with its exact probability."""

    preferences: PreferenceStream
    value_start: Scorer | None = None
    soft: ClassVar[bool] = True

    @property
    def phases(self) -> int:
        """As often as the stream goes on."""
        return self.preferences.phases

    def rows(self, phase: int, policy: Policy, lab: Lab) -> Rows:
        """Return the fresh pairs of a phase."""
        return self.preferences.rows(phase, policy, lab)


def pairs_of(preferences: Rows | PreferenceStream) -> Fixed | Stream:
    """Return what a loss of pairs trains on: all strict pairs of the rankings, or the pairs of an exact stream."""
    if isinstance(preferences, PreferenceStream):
        return Stream(preferences)
    return Fixed(pairs(preferences))


@dataclass(frozen=True)
class Rollouts:
    """Online experience: sample the policy being trained, ask for feedback, train on the answer."""

    prompts: Rows
    feedback: Feedback
    phases: int  # how often the policy is sampled anew
    prompts_per_phase: int
    n: int = 1  # completions a prompt
    value_start: Scorer | None = None

    def rows(self, phase: int, policy: Policy, lab: Lab) -> Rows:
        """Sample the next prompts of an order that is drawn anew at each pass through them."""
        count = len(self.prompts)
        wanted = range(phase * self.prompts_per_phase, (phase + 1) * self.prompts_per_phase)
        orders = {one: lab.random("rollout order", one).permutation(count) for one in {i // count for i in wanted}}
        chosen = self.prompts.select([int(orders[i // count][i % count]) for i in wanted])
        return self.feedback.rows(lab.sample(policy, chosen, self.n, stream=f"rollout {phase}"), lab)


@dataclass(frozen=True)
class ScoredBy:
    """Feedback on each completion by a scorer."""

    scorer: Scorer

    def rows(self, sampled: Rows, lab: Lab) -> Rows:
        """Add a ``score`` column."""
        return lab.score(sampled, self.scorer)
