"""Experience: where the rows of a fit come from."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from math import exp
from typing import Any, ClassVar, Protocol

from datasets import Dataset

from alignarena.core.contract import Lab, Policy, PreferenceStream, Rows, Scorer, TrainablePolicy
from alignarena.core.errors import RunFailed
from alignarena.core.rows import column, taken, with_column
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


def pairs_of(preferences: Rows | PreferenceStream, ties: bool = False) -> Fixed | Stream:
    """Return what a loss of pairs trains on: all strict pairs of the rankings, or the pairs of an exact stream.

    With ``ties`` those of the rankings are pairs, too, and all their labels soft.
    """
    if isinstance(preferences, PreferenceStream):
        return Stream(preferences)
    return Fixed(pairs(preferences, ties))


@dataclass(frozen=True)
class Rollouts:
    """Online experience: sample the policy being trained, ask for feedback, train on the answer."""

    prompts: Rows
    feedback: Feedback
    phases: int  # how often the policy is sampled anew
    prompts_per_phase: int
    n: int = 1  # completions a prompt
    value_start: Scorer | TrainablePolicy | None = None

    def rows(self, phase: int, policy: Policy, lab: Lab) -> Rows:
        """Sample the prompts of a phase."""
        chosen = self.prompts_of(phase, lab)
        return self.feedback.rows(lab.sample(policy, chosen, self.n, stream=f"rollout {phase}"), lab)

    def prompts_of(self, phase: int, lab: Lab) -> Rows:
        """Return the next prompts of an order that is drawn anew at each pass through them."""
        return in_turn(self.prompts, phase, self.prompts_per_phase, lab, "rollout order")


def in_turn(rows: Rows, phase: int, each: int, lab: Lab, order: str) -> Rows:
    """Return the rows of a phase, ``each`` a phase; their order is named, and drawn anew at each pass through them."""
    count, wanted = len(rows), range(phase * each, (phase + 1) * each)
    orders = {one: lab.random(order, one).permutation(count) for one in {i // count for i in wanted}}
    return taken(rows, [int(orders[i // count][i % count]) for i in wanted])


@dataclass(frozen=True)
class ScoredBy:
    """Feedback on each completion by a scorer."""

    scorer: Scorer

    def rows(self, sampled: Rows, lab: Lab) -> Rows:
        """Add a ``score`` column."""
        return lab.score(sampled, self.scorer)


@dataclass(frozen=True)
class ScoredInGroups:
    """Feedback on each completion by a scorer, for losses that compare the completions of a prompt."""

    scorer: Scorer

    def rows(self, sampled: Rows, lab: Lab) -> Rows:
        """Add ``score`` and ``group``, equal for completions drawn together: a prompt that comes twice is two groups.

        Drawn anew in one phase, a prompt gives the same completions, which would not be independent within a group.
        """
        group = list(accumulate(int(index == 0) for index in column(sampled, "sample")))
        return with_column(lab.score(sampled, self.scorer), "group", group)


@dataclass(frozen=True)
class ComparedByScore:
    """Feedback on two completions of a prompt by a scorer: the better one is chosen."""

    scorer: Scorer
    missing_eos_penalty: float  # taken off the score of a completion that does not finish
    soft: bool  # add the probability that the chosen one is preferred, the sigmoid of the scores' difference

    def rows(self, sampled: Rows, lab: Lab) -> Rows:
        """Turn both completions of each prompt into a pair with its ``margin`` and mean ``score``.

        Left out are pairs that say nothing: equal completions, and with hard labels equal scores.

        Raises:
            RunFailed: No pair says anything.
        """
        scored = lab.score(sampled, self.scorer).to_list()
        pairs = [self._pair(*both) for both in zip(scored[::2], scored[1::2], strict=True)]
        kept = [pair for pair in pairs if pair is not None]
        if not kept:
            raise RunFailed(f"the scorer prefers neither completion of any of {len(pairs)} prompts; lower the "
                            "learning_rate or raise beta, if the policy has come to give one answer only")  # fmt: skip
        return Dataset.from_list(kept)

    def _pair(self, first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any] | None:
        margin = self._penalised(first) - self._penalised(second)
        if first["completion_ids"] == second["completion_ids"] or (margin == 0 and not self.soft):
            return None
        chosen, rejected = (first, second) if margin >= 0 else (second, first)
        pair = {name: first[name] for name in ("prompt_id", "prompt", "prompt_ids")}
        for side, row in (("chosen", chosen), ("rejected", rejected)):
            pair |= {side: row["completion"], f"{side}_ids": row["completion_ids"]}
        pair |= {"margin": abs(margin), "score": (first["score"] + second["score"]) / 2}
        return pair | {"probability": 1 / (1 + exp(-abs(margin)))} if self.soft else pair

    def _penalised(self, row: dict[str, Any]) -> float:
        missing = row["finish_reason"] != "stop"
        return float(row["score"] - self.missing_eos_penalty * missing)
