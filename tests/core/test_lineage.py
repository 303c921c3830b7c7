"""Roots of feedback: found wherever they are held, read back from stored cells, and set beside a judge's."""

from dataclasses import dataclass
from typing import Any

import pytest
from datasets import Dataset

from alignarena.core.feedback import Standardised
from alignarena.core.lineage import (
    LABELER,
    compared_model,
    model_root,
    models,
    noted,
    roots,
    same_family,
    under_every_name,
)

MODEL = "smollm2-135m-instruct"
NAMES = {LABELER, "d1", "model smollm2-135m-instruct"}


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


@pytest.mark.parametrize(("budget", "found"), [
    ({}, set()),
    ({"charged": {"labels": 4.6}, "lineage": ["vader"]}, {"vader"}),
    ({"charged": {"labeler_calls": 2}, "lineage": ["exact labeler"]}, {"exact labeler"}),  # what is noted stands
    ({"charged": {"labeler_calls": 2}}, {LABELER}),  # noted nothing: from before it was
    ({"stages": [{"verb": "sample"}, {"verb": "revise"}]}, {LABELER}),
    ({"stages": [{"verb": "sample"}]}, set()),
])  # fmt: skip
def test_a_stored_cell_has_what_it_noted_or_paid_for(budget: dict[str, Any], found: set[str]) -> None:
    assert noted(budget) == found


@pytest.mark.parametrize(("lineage", "found"), [
    (set(), set()), ({"vader"}, {"vader"}), ({"d2"}, {"d2"}), ({"vader", LABELER}, {"vader", *NAMES}),
    ({"d1"}, NAMES),  # it wrote the demonstrations, say
])  # fmt: skip
def test_the_compared_model_is_a_root_by_all_its_names_or_none(lineage: set[str], found: set[str]) -> None:
    assert under_every_name(frozenset(lineage), f"HuggingFaceTB/{MODEL}", "d1") == found


def test_a_digest_that_is_not_known_is_no_name() -> None:
    assert under_every_name(frozenset({""}), MODEL) == {""}
    assert under_every_name(frozenset({LABELER}), MODEL) == NAMES - {"d1"}


def test_a_model_has_one_root_however_it_is_come_by() -> None:
    suite = {"model": {"model_name_or_path": MODEL}}
    assert model_root("HuggingFaceTB/SmolLM2-135M-Instruct/") == model_root(compared_model(suite))
    assert compared_model({}) == ""


@pytest.mark.parametrize(("other", "same"), [
    ("HuggingFaceTB/SmolLM3-3B", True), ("Qwen/Qwen3-8B", False), ("/models/smollm-135m", True), ("", False),
])  # fmt: skip
def test_families_by_name(other: str, same: bool) -> None:
    assert same_family(other, MODEL) is same
    assert same_family("meta-llama/Meta-Llama-3-8B", "Llama-2-7b") is True
