"""One seed of an exact world: every distribution in it, and how far a policy is from what it could be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, singledispatch
from typing import Any

import numpy as np
from datasets import Dataset

from alignarena.benchmarks.exact.enumeration import Enumeration
from alignarena.benchmarks.exact.text import Combination, prompt_rows
from alignarena.core.contract import Method, Policy, TrainablePolicy
from alignarena.evaluators.exact import targets
from alignarena.evaluators.exact.gold import WorldGold
from alignarena.evaluators.exact.labeler import Opinion
from alignarena.evaluators.exact.measures import measures
from alignarena.evaluators.exact.optimum import frontier_curve
from alignarena.evaluators.exact.world import Floats, World
from alignarena.harness.backbone import Backbone
from alignarena.methods.best_of_n import BestOfNPolicy
from alignarena.methods.parts.instructions import Instructed, instructed

Measured = tuple[Mapping[str, Any], dict[str, float | None]]


@dataclass(frozen=True)
class Prompts:
    """Some combinations of a world, their completions enumerated under the SFT policy."""

    world: World
    combinations: Sequence[Combination]
    split: str
    backbone: Backbone
    sft: TrainablePolicy
    unlimited: bool  # feedback is exact: it is drawn partly uniformly, and methods see gold on its own scale
    noise: float  # of the annotator where it is not
    start: Floats | None = None  # where the stages of a chain before the one asked for have led (P, N)

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """One row a combination."""
        return prompt_rows(self.combinations, 1, self.split)

    @cached_property
    def enumeration(self) -> Enumeration:
        """What computes distributions over their completions."""
        return self.enumerated(self.rows)

    def enumerated(self, rows: Iterable[Mapping[str, Any]]) -> Enumeration:
        """Return what computes distributions over the completions of prompts that have one length in tokens."""
        ids = [self.backbone.tokens.prompt_ids(row["prompt"]) for row in rows]
        return Enumeration(self.backbone, self.world.leaves, ids)

    @cached_property
    def log_sft(self) -> Floats:
        """The SFT policy (P, N), nats."""
        return self.enumeration.logps(self.sft)

    @property
    def log_reference(self) -> Floats:
        """The reference model (P, N), nats: the SFT policy, but in the later stages of a chain what led there."""
        return self.log_sft if self.start is None else self.start

    @cached_property
    def gold(self) -> Floats:
        """The hidden reward (P, N)."""
        return self.gold_on("overall")

    def gold_on(self, axis: str) -> Floats:
        """Return the hidden reward of an axis (P, N)."""
        return np.stack([self.world.gold(combination, axis) for combination in self.combinations])

    @property
    def preferred(self) -> Floats:
        """What pairs of completions are labelled by (P, N): the log-odds of a preference are its differences."""
        return self.gold if self.unlimited else self.gold / self.noise

    @property
    def certain(self) -> bool:
        """Whether pairs are labelled without noise: then no log-ratio is large enough, and no target finite."""
        return not self.unlimited and self.noise == 0

    @property
    def rewarded(self) -> Floats:
        """What a perfect reward model gives (P, N): where it had to be learnt, with deviation 1 on SFT samples."""
        return self.gold if self.unlimited else self.standardised(self.gold)

    @property
    def opinion(self) -> Floats:
        """What the AI labeler takes for the reward (P, N)."""
        return np.stack([self.world.opinion(combination) for combination in self.combinations])

    def standardised(self, reward: Floats) -> Floats:
        """Return a reward (P, N) with mean 0 and deviation 1 on samples of the SFT policy."""
        mass = np.exp(self.log_sft) / len(reward)
        mean = (mass * reward).sum()
        return (reward - mean) / np.sqrt((mass * (reward - mean) ** 2).sum())  # type: ignore[no-any-return]

    @property
    def log_data(self) -> Floats:
        """What the completions of preferences are drawn from (P, N), nats."""
        share = self.world.uniform_share if self.unlimited else 0.0
        return np.log((1 - share) * np.exp(self.log_sft) + share / self.gold.shape[1])  # type: ignore[no-any-return]

    @property
    def log_demonstrations(self) -> Floats:
        """What demonstrations are drawn from (P, N), nats."""
        chains = (self.world.demonstration_logits(combination) for combination in self.combinations)
        return np.stack([self.world.leaves.markov(logits) for logits in chains])

    def measures(self, policy: Policy, method: Method, against_target: bool = True) -> dict[str, Floats]:
        """Return every exact measure of a method's policy, each (P,)."""
        target = own_target(method, self) if against_target else None
        found = measures(logps(policy, self), self.log_reference, self.gold, self.world.beta, target)
        return {name: np.broadcast_to(values, len(self.combinations)) for name, values in found.items()}


class Laboratory:
    """The held-out and the trained prompts of one seed."""

    def __init__(
        self, world: World, backbone: Backbone, sft: TrainablePolicy, unlimited: bool, noise: float
    ) -> None:
        shared = (backbone, sft, unlimited, noise)
        self.held_out = Prompts(world, world.held_out, "evaluation", *shared)
        self.trained = Prompts(world, world.trained, "trained", *shared)

    def measured(self, policy: Policy, method: Method) -> Iterator[Measured]:
        """Yield a row and its measures for every prompt; those of trained prompts are named so.

        On trained prompts a method is held to its own target where feedback was unlimited; elsewhere that is not asked.
        """
        for prompts, suffix in ((self.held_out, ""), (self.trained, "_trained")):
            found = prompts.measures(policy, method, against_target=not suffix or prompts.unlimited)
            for place, row in enumerate(prompts.rows):
                values = {f"{name}{suffix}": float(array[place]) for name, array in found.items()}
                yield {**row, "sample": 0}, {name: v if np.isfinite(v) else None for name, v in values.items()}

    def frontier(self) -> dict[str, list[float]]:
        """Return the greatest reward at each KL (nats) on the held-out prompts."""
        kl, reward = frontier_curve(self.held_out.log_reference, self.held_out.gold)
        return {"kl": kl.tolist(), "reward": reward.tolist()}


@singledispatch
def logps(policy: Any, prompts: Prompts) -> Floats:
    """Return the distribution (P, N) of a policy, nats; a recipe of policies says how by its type."""
    return prompts.enumeration.logps(policy)


@logps.register
def _(policy: BestOfNPolicy, prompts: Prompts) -> Floats:
    return targets.best_of_n(logps(policy.policy, prompts), scores(policy.scorer, prompts), policy.n)


@logps.register
def _(policy: Instructed, prompts: Prompts) -> Floats:
    told = instructed(Dataset.from_list(prompts.rows), policy.instruction)
    return prompts.enumerated(told.to_list()).logps(policy.policy)


def scores(scorer: Any, prompts: Prompts) -> Floats:
    """Return the scores (P, N) of all completions."""
    if isinstance(scorer, WorldGold):
        return np.stack([scorer.world.gold(combination, scorer.axis) for combination in prompts.combinations])
    if isinstance(scorer, Opinion):
        return np.stack([scorer.world.opinion(combination) for combination in prompts.combinations])
    return prompts.enumeration.scores(scorer)


@singledispatch
def own_target(method: Any, prompts: Prompts) -> Floats | None:
    """Return what a method converges to with exact and unlimited feedback (P, N), nats; None where nobody has said.

    A method joins by ``@own_target.register``, on its type.
    """
    return None
