"""The AI labeler of an exact world: a program with an opinion of every completion, gold with a stated error."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from datasets import Dataset
from scipy.special import expit

from alignarena.core.contract import Lab, Rows, Scorer
from alignarena.evaluators.exact.gold import places
from alignarena.evaluators.exact.world import Floats, World, parsed
from alignarena.evaluators.verdicts import check_pairs, preference


@dataclass(frozen=True)
class Opinion:
    """Scores a completion by what the labeler takes for the reward, in gold's units.

    An opinion (``World.opinion``) is the same whenever it is asked for: what the labeler gets wrong, asking again or
    elsewhere does not put right, as with a language model.
    """

    world: World

    @property
    def lineage(self) -> frozenset[str]:
        """Its own root: it is no annotator."""
        return frozenset({"exact labeler"})

    def score(self, rows: Rows, lab: Lab) -> list[float]:
        """Return the opinion of each completion.

        Raises:
            BadInput: A prompt or completion is not of this world.
        """
        return [float(_opinion(self.world, prompt)[place]) for prompt, place in places(self.world, rows)]


@dataclass(frozen=True)
class WorldLabeler(Opinion):
    """Prefers by sigmoid(difference of opinion), soft and without bias to a place; scores by its opinion.

    It has one opinion, by whatever principle it is asked to compare.
    """

    unlimited: bool = False  # whether it may be asked without end
    writer: None = None

    @property
    def oracle(self) -> Scorer | None:
        """Its opinion, if it may be asked without end."""
        return Opinion(self.world) if self.unlimited else None

    def calls(self, completions: int) -> int:
        """Return those a language model would take: one a score, two a comparison."""
        return completions

    def prefer(self, rows: Rows, lab: Lab) -> Rows:
        """Compare the two completions of each row.

        Returns:
            The rows with ``probability`` that the first is better, ``ranks`` and ``margins``.

        Raises:
            BadInput: A row has not two completions, or one is not of this world.
        """
        asked = rows.to_list()
        check_pairs([row["completions"] for row in asked])
        opinions = self.score(Dataset.from_list([one for row in asked for one in _singles(row)]), lab)
        pairs = zip(asked, opinions[::2], opinions[1::2], strict=True)
        return Dataset.from_list([{**row, **preference(float(expit(a - b)))} for row, a, b in pairs])


def _singles(row: dict[str, Any]) -> list[dict[str, Any]]:
    reasons = row.get("finish_reasons") or ["stop"] * len(row["completions"])
    both = zip(row["completions"], reasons, strict=True)
    return [{"prompt": row["prompt"], "completion": text, "finish_reason": reason} for text, reason in both]


@lru_cache(maxsize=4096)
def _opinion(world: World, prompt: str) -> Floats:
    return world.opinion(parsed(prompt))
