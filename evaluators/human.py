"""Preferences that people already gave: pairs of a dataset, put in the form every method reads."""

from __future__ import annotations

from dataclasses import dataclass

from datasets import Dataset

from alignarena.core.contract import Lab, Rows


@dataclass(frozen=True)
class RecordedPreferences:
    """People's verdicts on pairs, as recorded: a judge that answers with the ``chosen`` column."""

    lineage: frozenset[str] = frozenset({"human"})

    def prefer(self, rows: Rows, lab: Lab) -> Rows:
        """Rank ``completions`` (2) of each row by its ``chosen``; ``margin`` becomes ``margins``."""
        return Dataset.from_list(
            [
                {
                    **row,
                    "ranks": [1 if text == row["chosen"] else 2 for text in row["completions"]],
                    "margins": [row.get("margin") or 0.0],
                }
                for row in rows.to_list()
            ]
        )
