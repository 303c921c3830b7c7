"""The committed reference run: its report renders the same twice, and its gold is what its completions are worth."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from alignarena.evaluators.sentiment import parts
from alignarena.results.frame import load_results
from alignarena.results.store import RunFolder

REFERENCE = Path(__file__).parents[2] / "results" / "reference" / "quickstart"
_RENDER = "import sys; from alignarena.reports.page import write_report; write_report([sys.argv[1]], sys.argv[2])"


def rendered(to: Path, hash_seed: str) -> dict[str, bytes]:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    subprocess.run([sys.executable, "-c", _RENDER, str(REFERENCE), str(to)], check=True, env=environment)
    return {str(file.relative_to(to)): file.read_bytes() for file in sorted(to.rglob("*")) if file.is_file()}


@pytest.mark.slow
def test_the_report_is_byte_stable(tmp_path: Path) -> None:
    first = rendered(tmp_path / "a" / "report", "1")
    assert "index.html" in first
    assert first == rendered(tmp_path / "b" / "report", "2")


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return load_results(str(REFERENCE)).leaderboard().set_index("method")


@pytest.mark.parametrize("method", sorted(path.parents[1].name for path in REFERENCE.glob("*/*/completions.jsonl")))
def test_gold_is_what_the_completions_are_worth(table: pd.DataFrame, method: str) -> None:
    gold = [parts(row)["gold"] for row in RunFolder.open(REFERENCE).read_cell(method, 0).completions]
    assert table.loc[method, "gold_reward"] == pytest.approx(sum(gold) / len(gold), abs=1e-9)


def test_the_reference_is_small() -> None:
    assert sum(file.stat().st_size for file in REFERENCE.rglob("*") if file.is_file()) < 2e6
