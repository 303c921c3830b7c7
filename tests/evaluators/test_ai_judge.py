"""The AI judge grades what it had no hand in, and says nothing of the rest: by lineage."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from datasets import Dataset

from alignarena.core.errors import BadInput
from alignarena.evaluators.ai_judge import measure
from alignarena.paper_lab import PaperJudge, PaperLab, PaperLabeler

LABELER = PaperLabeler()
ROWS = Dataset.from_list(
    [{"prompt_id": f"p{i}", "prompt": "x", "sample": j, "completion": f"text {i} {j}"}
     for i in range(3) for j in (0, 1)]
)  # fmt: skip


def measured(lineage: frozenset[str], labeler: Any = LABELER) -> list[float | None]:
    evidence: Any = SimpleNamespace(lab=PaperLab(), rows=ROWS, labeler=labeler, lineage=lineage)
    return [values["ai_judge"] for _, values in measure(evidence)]


def test_it_grades_a_policy_that_learned_from_others() -> None:
    found = measured(frozenset({"vader", "some policy"}))
    assert len(found) == 3 and all(isinstance(value, float) for value in found)  # one answer a prompt


def test_it_grades_none_that_learned_from_it() -> None:
    assert measured(frozenset({"vader", "labeler"})) == [None, None, None]


def test_a_policy_taught_by_what_its_model_wrote_is_not_graded() -> None:
    taught = frozenset({LABELER.writer.digest})
    assert measured(taught, PaperLabeler(lineage=frozenset({"another name"}))) == [None, None, None]


def test_a_judge_that_only_compares_cannot() -> None:
    with pytest.raises(BadInput, match="no AI labeler that scores"):
        measured(frozenset(), PaperJudge())
