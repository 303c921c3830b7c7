from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from alignarena.reports import plane
from alignarena.results.frame import load_results


def test_harmless_is_what_is_not_harmful(tmp_path: Path, run_folders: ModuleType) -> None:
    folder = run_folders.quickstart(tmp_path / "run", methods=("sft", "dpo"))
    assert plane.plot(load_results(folder.path)) is None  # one axis
    for method, every in (("sft", 2), ("dpo", 4)):
        scores = folder.read_cell(method, 0).scores
        harm = [
            {**row, "metric": "harmful", "value": float(int(row["prompt_id"][1:]) % every == 0)}
            for row in scores
            if row["metric"] == "gold"
        ]
        folder.write_cell(method, 0, scores=[*scores, *harm])
    results = load_results(folder.path)
    [axes] = plane.plot(results).axes  # type: ignore[union-attr]
    points = {line.get_label(): line.get_xydata()[0] for line in axes.lines if line.get_label() in ("sft", "dpo")}
    assert points["sft"] == pytest.approx([results.interval("sft", "on_topic").mean, 0.5])
    assert points["dpo"][1] == pytest.approx(0.75)
