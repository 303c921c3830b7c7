from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

from alignarena.reports import curves, plots
from alignarena.reports.style import inline, look
from alignarena.results.frame import load_results
from alignarena.results.store import RunFolder


@pytest.fixture(scope="module")
def drawn(finished_run: RunFolder) -> dict[str, plots.Plot]:
    return {plot.name: plot for plot in plots.draw(load_results(finished_run.path))}


def test_every_plot_is_drawn_as_svg_and_png(drawn: dict[str, plots.Plot]) -> None:
    training = {f"training-{method}" for method in ("sft", "dpo", "ppo", "rejection_sampling")}
    assert set(drawn) == set(plots.FIGURES) - {"plane", "cost"} | training
    for plot in drawn.values():
        ElementTree.fromstring(plot.svg)
        assert plot.png.startswith(b"\x89PNG")
        assert "<text" not in plot.svg  # fonts are paths: the same everywhere
        assert "<dc:date>" not in plot.svg


def test_a_method_keeps_its_colour_in_every_plot(drawn: dict[str, plots.Plot]) -> None:
    colour, _ = look("ppo")
    assert all(colour in drawn[name].svg for name in ("gold", "reward_kl", "gold_proxy", "lengths", "training-ppo"))
    assert look("elsewhere/ppo") == look("ppo")
    assert look("my_method") == look("my_method")


@pytest.mark.parametrize("paper", [(1.0, 1.0, 1.0), (0x14 / 255, 0x17 / 255, 0x1A / 255)])
def test_colours_are_seen_on_light_and_dark(paper: tuple[float, float, float]) -> None:
    def luminance(rgb: tuple[float, ...]) -> float:
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in rgb]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    methods = ("base", "sft", "best_of_n", "dpo", "ppo", "rejection_sampling", "cpl", "hir", "rest", "rlaif",
               "constitutional_ai")  # fmt: skip
    for method in methods:
        colour = look(method)[0]
        rgb = tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        light, dark = sorted((luminance(rgb), luminance(paper)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 3, method


def test_an_inlined_plot_has_ids_of_its_own_and_follows_the_page(drawn: dict[str, plots.Plot]) -> None:
    svg = inline(drawn["gold"].svg, "gold", "what it shows")
    root = ElementTree.fromstring(svg)
    ids = {node.get("id") for node in root.iter() if node.get("id")}
    assert ids and all(str(one).startswith("gold-") for one in ids)
    used = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', svg))
    assert used and all((a or b) in ids for a, b in used)
    assert root.get("width") is None and root.get("aria-label") == "what it shows"
    assert "currentColor" in svg and "#ffffff" not in svg


def test_plots_without_data_are_not_drawn(tmp_path: Path, run_folders: ModuleType) -> None:
    folder = run_folders.human_preferences(tmp_path / "hh")
    names = {plot.name for plot in plots.draw(load_results(folder.path))}
    assert {"gold", "gold_proxy"} & names == set()
    assert {"reward_kl", "lengths", "training-dpo"} <= names


def test_curves_survive_a_diverged_run_and_are_thinned() -> None:
    losses = [None if step == 7 else 1.0 for step in range(5000)]
    rows = [{"fit": 0, "step": step, "loss": loss, "loss_name": "DPOLoss"} for step, loss in enumerate(losses)]
    steps, values = curves._curves(rows)["DPOLoss: loss"][0]
    assert 200 <= len(steps) <= 400 and len(steps) == len(values)


def test_curves_drawn_by_processes_of_their_own_are_the_same(
    tmp_path: Path, run_folders: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = load_results(run_folders.human_preferences(tmp_path / "hh").path)
    here = list(curves.each(results))
    assert here
    monkeypatch.setattr(curves, "_MANY", 1)
    assert list(curves.each(results)) == here
