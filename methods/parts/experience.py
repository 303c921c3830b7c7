"""Experience: where the rows of a fit come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from alignarena.core.contract import Lab, Policy, Rows, Scorer


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

    def rows(self, phase: int, policy: Policy, lab: Lab) -> Rows:
        """Return all rows."""
        return self.data


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
