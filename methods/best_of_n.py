"""Best-of-n: draw n completions from the SFT policy and answer with the one the reward model likes best.

Differs from the paper: nothing. Its KL to the SFT policy is reported by the analytic bound log n - (n - 1)/n, exact
only where scores do not tie (Stiennon et al. 2020; Gao et al. 2022), and flagged so.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import Any

from datasets import Dataset

from alignarena.core.contract import Lab, Policy, Rows, Sampling, Scorer, Task, TrainablePolicy
from alignarena.core.digest import digest
from alignarena.core.registry import method
from alignarena.methods.parts.reward_modelling import RewardModelling
from alignarena.methods.parts.rows import best_row, by_prompt


@method("best_of_n", paper="arXiv:2009.01325", family="baseline")
@dataclass(frozen=True)
class BestOfN:
    """No training of the policy at all: n times the work at every answer."""

    n: int = 4  # completions drawn for each answer
    reward_model: RewardModelling = RewardModelling()

    def align(self, task: Task, lab: Lab) -> Policy:
        """Pair the SFT policy with the reward model."""
        return BestOfNPolicy(task.policy, self.reward_model.fit(task, lab), self.n)


@dataclass(frozen=True)
class BestOfNPolicy:
    """A recipe rather than a checkpoint: another policy, a scorer and n."""

    policy: TrainablePolicy
    scorer: Scorer
    n: int

    @property
    def digest(self) -> str:
        """Name of its parts."""
        return digest("best of n", self.policy, self.scorer, self.n)

    @property
    def kl_bound(self) -> float:
        """Upper bound of the KL to the policy inside, in nats a completion."""
        return log(self.n) - (self.n - 1) / self.n

    def complete(self, lab: Lab, rows: Rows, n: int, *, stream: str, sampling: Sampling) -> Rows:
        """Answer each prompt n times, each time with the best of ``self.n`` fresh draws."""
        # of a stream of their own: a first candidate that is the SFT policy's own answer would tie with it
        candidates = lab.sample(self.policy, rows, n * self.n, stream=f"{stream} candidates", sampling=sampling)
        drawn = lab.score(candidates, self.scorer)
        answers: list[dict[str, Any]] = []
        for group in by_prompt(drawn):
            for index in range(n):
                of_one = group[index * self.n : (index + 1) * self.n]
                best = best_row(of_one, lab)
                tokens = sum(len(row["completion_ids"]) for row in of_one)
                answers.append({**best, "sample": index, "inference_tokens": tokens})
        return Dataset.from_list(answers).remove_columns("score")
