"""A run that asked an AI labeler says how far it can be relied on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import alignarena
from alignarena.benchmarks import plan
from alignarena.benchmarks.datasets import DATASETS, DataConfig
from alignarena.evaluators.exact.labeler import WorldLabeler
from alignarena.evaluators.labeler import LanguageLabeler
from alignarena.paper_lab import PaperPolicy

FAST = {
    "method.d_rlaif.updates": 2, "method.d_rlaif.prompts_per_update": 4, "method.d_rlaif.n": 2,
    "method.d_rlaif.schedule.batch_size": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def asked(tiny_suite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a method that asks the labeler."""
    folder = tmp_path_factory.mktemp("asked")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALIGNARENA_CACHE", str(folder / "cache"))
        alignarena.run(str(tiny_suite_file), out=folder / "run", methods=["sft", "d_rlaif"], set=FAST)
    return folder / "run"


def test_the_table_holds_what_is_known_of_the_labeler(asked: Path) -> None:
    table = json.loads((asked / "extra" / "labeler.json").read_text())
    values = {row[0]: row[1:] for row in table["rows"]}
    (agreement,) = [value for name, value in values.items() if "annotator" in name]
    assert 0 <= agreement[1] <= agreement[0] <= agreement[2] <= 1
    assert "The AI labeler" in (asked / "report" / "index.html").read_text()


def test_the_cell_pays_its_calls_and_the_check_is_charged_to_nobody(asked: Path) -> None:
    charged = json.loads((asked / "d_rlaif" / "0" / "budget.json").read_text())["charged"]
    assert (charged["labeler_calls"], charged["labels"]) == (16, 0)
    charged = json.loads((asked / "sft" / "0" / "budget.json").read_text())["charged"]
    assert (charged["labeler_calls"], charged["labels"]) == (0, 0)


def test_a_run_that_asks_no_labeler_has_no_table(finished_tiny_run: Any) -> None:
    assert not (finished_tiny_run.folder / "extra" / "labeler.json").exists()


def test_a_dry_run_counts_the_calls(tiny_suite_file: Path) -> None:
    text = plan.dry_run(str(tiny_suite_file), methods=["d_rlaif", "rlaif"], set=FAST)
    lines = {line.split()[0]: line.split() for line in text.splitlines() if line.split()}
    assert lines["d_rlaif"][5] == "16" and lines["d_rlaif"][4] == "0"
    assert int(lines["rlaif"][5]) > 0 and lines["rlaif"][4] == "0"


def test_each_dataset_has_its_labeler() -> None:
    base = PaperPolicy("base")
    made = {name: entry.labeler(DataConfig(name), base, True) for name, entry in DATASETS.items()}
    assert isinstance(made["exact"], WorldLabeler) and made["exact"].writer is None
    assert made["exact"].oracle is not None
    assert DATASETS["exact"].labeler(DataConfig("exact"), base, False).oracle is None  # type: ignore[attr-defined]
    for name in ("quickstart", "hh-rlhf", "preferences"):
        labeler = made[name]
        assert isinstance(labeler, LanguageLabeler) and labeler.writer == base
        assert labeler.by_score == (name == "quickstart")
