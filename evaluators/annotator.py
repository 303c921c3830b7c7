"""The simulated annotator: people who rank completions by a hidden score, with a stated noise.

Adding Gumbel noise of scale s to utilities and sorting draws a ranking from the Plackett-Luce model with utilities u/s,
so a pair is preferred with Bradley and Terry's probability sigma((u_i - u_j) / s), whatever else is in the ranking
(Plackett, 1975; Bradley and Terry, 1952). Margins follow the four grades of Llama 2, small version (Touvron et al.,
2023; arXiv:2307.09288, section 3.2.2 and table 27).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from datasets import Dataset

from alignarena.core.contract import Lab, Rows, Scorer
from alignarena.core.digest import digest
from alignarena.core.errors import BadInput


@dataclass(frozen=True)
class SimulatedAnnotator:
    """Ranks the completions of a prompt by a scorer's values plus noise; a :class:`~alignarena.core.contract.Judge`."""

    scorer: Scorer
    noise: float = 0.1  # scale of the Gumbel noise, in the scorer's units; 0 ranks exactly
    grades: tuple[float, float, float] = (0.1, 0.25, 0.5)  # utility differences from which a choice is slightly
    # better, better, significantly better; below the first it is negligibly better

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            BadInput: The noise is negative, or the grades are not three rising positive numbers.
        """
        if not self.noise >= 0.0:
            raise BadInput(f"annotator: noise {self.noise!r} must be 0 or more")
        if len(self.grades) != 3 or not 0.0 < self.grades[0] < self.grades[1] < self.grades[2]:
            raise BadInput(f"annotator: grades {self.grades!r} must be three positive numbers, each above the last")

    @property
    def lineage(self) -> frozenset[str]:
        """The root scorers behind it: noise changes none of them."""
        return self.scorer.lineage

    def prefer(self, rows: Rows, lab: Lab) -> Rows:
        """Rank the completions of each row.

        Args:
            rows: ``prompt_id``, ``prompt``, ``completions`` (K texts), where known ``finish_reasons`` (K), and whatever
                else the scorer reads of a prompt.
            lab: Gives each row its own noise, so neither order nor batch changes a choice.

        Returns:
            The rows with ``ranks`` (K; 1 is best; equal utilities share a rank) and ``margins``: for each pair, in the
            order of ``combinations(range(K), 2)``, 0, 1/3, 2/3 or 1, however the pair was decided.
        """
        asked = rows.to_list()
        flat = [single for row in asked for single in _singles(row)]
        if not flat:
            return rows
        scores = iter(self.scorer.score(Dataset.from_list(flat), lab))
        judged = []
        for row in asked:
            utilities = self._utilities(row, [next(scores) for _ in row["completions"]], lab)
            judged.append({**row, "ranks": _ranks(utilities), "margins": self._margins(utilities)})
        return Dataset.from_list(judged)

    def _utilities(self, row: dict[str, Any], scores: list[float], lab: Lab) -> list[float]:
        # The completions are in the name: asked again about other completions of the prompt, the annotator errs afresh.
        name = ("annotator", type(self.scorer).__name__, row["prompt_id"], digest(row["completions"]))
        return [float(u) for u in np.asarray(scores) + self.noise * lab.random(*name).gumbel(size=len(scores))]

    def _margins(self, utilities: Sequence[float]) -> list[float]:
        differences = [abs(first - second) for first, second in combinations(utilities, 2)]
        return [float(grade) / 3.0 for grade in np.digitize(differences, self.grades)]


def _singles(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one row a completion, with the columns of the prompt."""
    shared = {k: v for k, v in row.items() if k not in ("completions", "finish_reasons", "ranks", "margins")}
    reasons = row.get("finish_reasons") or [None] * len(row["completions"])
    return [
        {**shared, "completion": text, "finish_reason": reason}
        for text, reason in zip(row["completions"], reasons, strict=True)
    ]


def _ranks(utilities: Sequence[float]) -> list[int]:
    return [1 + sum(other > own for other in utilities) for own in utilities]
