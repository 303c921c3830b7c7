"""Roots of feedback: found in judges, rows and experience, wherever they are held."""

from dataclasses import dataclass
from typing import Any

from datasets import Dataset

from alignarena.core.feedback import Standardised
from alignarena.core.lineage import models, roots


@dataclass(frozen=True)
class Rated:
    lineage: frozenset[str] = frozenset({"stated"})

    def score(self, rows: Any, lab: Any) -> list[float]:
        return [0.0 for _ in rows]


@dataclass(frozen=True)
class Holds:
    inside: Any
    beside: Any = None


@dataclass(frozen=True)
class Written:
    digest: str
    policy: Any = None


def test_those_of_a_scorer_are_its_own_and_pass_through_a_scale() -> None:
    assert roots(Rated()) == {"stated"} == roots(Standardised(Rated(), 0.0, 1.0))


def test_they_are_found_in_rows_and_in_what_holds_them() -> None:
    rows = Dataset.from_list([{"chosen": "a", "lineage": ["people"]}, {"chosen": "b", "lineage": ["labeler"]}])
    assert roots(rows) == {"people", "labeler"}
    assert roots(Holds(rows, (Rated(), {"x": [Holds(Rated(frozenset({"deep"})))]}))) == {
        "people", "labeler", "stated", "deep"
    }  # fmt: skip


def test_rows_without_labels_numbers_and_policies_have_none() -> None:
    assert roots(Dataset.from_list([{"chosen": "a"}])) == frozenset() == roots(Holds(3, "text"))
    assert roots(Written("policy", Rated())) == frozenset()


def test_a_writer_is_a_root_and_so_is_the_one_inside() -> None:
    assert models(Written("recipe", Written("model"))) == {"recipe", "model"}
    assert models(None) == frozenset()
