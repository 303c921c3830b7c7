"""docs/tour.ipynb: its cells run, and it holds what they gave."""

import json
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

DOCS = Path(__file__).parents[1] / "docs"
TOUR = DOCS / "tour.ipynb"


@pytest.fixture(scope="module")
def cells() -> list[dict[str, Any]]:
    return [cell for cell in json.loads(TOUR.read_text())["cells"] if cell["cell_type"] == "code"]


def test_the_cells_run(cells: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(DOCS)
    known: dict[str, Any] = {}
    for cell in cells:
        source = "".join(cell["source"])
        exec(compile(source, TOUR.name, "exec"), known)
        if source.startswith("r.plot_"):
            assert isinstance(eval(source, known), Figure)
    assert known["found"].winner == "cannot tell"


def test_every_cell_holds_what_it_gave(cells: list[dict[str, Any]]) -> None:
    assert cells
    for number, cell in enumerate(cells, start=1):
        assert cell["execution_count"] == number and cell["outputs"], cell["source"]
        assert all(output["output_type"] != "error" for output in cell["outputs"])
        if "".join(cell["source"]).startswith("r.plot_"):
            assert any("image/png" in output.get("data", {}) for output in cell["outputs"])
    assert TOUR.stat().st_size < 400_000
