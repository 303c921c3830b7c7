"""Whose verdict may stand: what a cell noted, or was charged, says where its feedback came from."""

from typing import Any

import pytest

from alignarena.core.records import Ledger
from alignarena.results.lineage import compared_model, feedback_roots, model_root, same_family
from alignarena.results.store import Cell

ROOT = "model smollm2-135m-instruct"
SUITE = {"model": {"model_name_or_path": "smollm2-135m-instruct"}, "feedback": {"annotator": "simulated"}}


@pytest.mark.parametrize(("cell", "roots"), [
    ({}, set()),
    ({"charged": Ledger(labels=4.6), "lineage": frozenset({"vader"})}, {"vader"}),
    ({"charged": Ledger(labeler_calls=2)}, {ROOT}),  # noted nothing: of before lineages were
    ({"stages": [{"verb": "revise"}]}, {ROOT}),
    ({"lineage": frozenset({"labeler"})}, {"labeler", ROOT}),
    ({"lineage": frozenset({"d1"})}, {"d1", ROOT}),  # it wrote the demonstrations, say
    ({"lineage": frozenset({"d2"}), "stages": [{"verb": "sample"}]}, {"d2"}),
])  # fmt: skip
def test_roots_are_what_was_noted_or_paid(cell: dict[str, Any], roots: set[str]) -> None:
    assert feedback_roots(Cell("m", 0, "DONE", **cell), SUITE, model_digest="d1") == roots


def test_no_digest_is_no_lineage() -> None:
    assert feedback_roots(Cell("m", 0, "DONE"), SUITE) == frozenset()


def test_a_model_has_one_root_however_it_is_come_by() -> None:
    assert model_root("HuggingFaceTB/SmolLM2-135M-Instruct/") == model_root(compared_model(SUITE))
    assert compared_model({}) == ""


@pytest.mark.parametrize(("other", "same"), [
    ("HuggingFaceTB/SmolLM3-3B", True), ("Qwen/Qwen3-8B", False), ("/models/smollm-135m", True), ("", False),
])  # fmt: skip
def test_families_by_name(other: str, same: bool) -> None:
    assert same_family(other, "smollm2-135m-instruct") is same
    assert same_family("meta-llama/Meta-Llama-3-8B", "Llama-2-7b") is True
