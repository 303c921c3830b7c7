from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from alignarena.core.records import Ledger
from alignarena.reports import cost
from alignarena.results.frame import Results, load_results


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, run_folders: ModuleType) -> Results:
    folder = run_folders.quickstart(tmp_path_factory.mktemp("cost") / "run", methods=("sft", "dpo", "ppo"))
    start = Ledger(trained_tokens=1000, seconds=30.0)
    further = {"sft": Ledger(), "dpo": Ledger(completions=500, trained_tokens=2000, seconds=60.0),
               "ppo": Ledger(completions=4000, trained_tokens=9000, seconds=600.0)}  # fmt: skip
    for method, ledger in further.items():
        charged = (start + ledger).to_dict()
        folder.write_cell(method, 0, budget={"charged": charged, "spent": charged, "track": "labels"})
    return load_results(folder.path)


def test_a_gain_is_divided_by_what_was_charged_beyond_sft(results: Results) -> None:
    table = cost.gains(results)
    assert [row[0].text for row in table.shown] == ["dpo", "ppo"]
    dpo, ppo = (dict(zip(table.headings, row, strict=True)) for row in table.shown)
    gain = results.compare("dpo", "sft", "gold")
    assert dpo["per 1,000 sampled completions"].sort == pytest.approx(2 * gain.difference)
    assert dpo["per 100,000 trained tokens"].sort == pytest.approx(50 * gain.difference)
    assert dpo["per 100,000 trained tokens"].limits == pytest.approx((50 * gain.low, 50 * gain.high))
    assert dpo["per 10 minutes"].sort == pytest.approx(10 * gain.difference)
    assert ppo["per 10 minutes"].sort == pytest.approx(results.compare("ppo", "sft", "gold").difference)
    assert dpo["per 1,000 labels"].reason == "none charged beyond SFT"


def test_a_panel_is_drawn_for_each_cost_that_any_method_was_charged(results: Results) -> None:
    drawn = cost.plot(results)
    assert drawn is not None
    labels = [axes.get_xlabel() for axes in drawn.axes if axes.get_visible()]
    assert labels == ["completions charged", "trained tokens charged", "seconds charged"]


def test_without_costs_beyond_sft_nothing_is_drawn(tmp_path: Path, run_folders: ModuleType) -> None:
    assert cost.plot(load_results(run_folders.quickstart(tmp_path / "run", methods=("sft", "dpo")).path)) is None
