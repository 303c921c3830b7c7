from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import exact_folders
import pytest
from exact_folders import BETA, PROMPTS, World, divergence, mean

from alignarena.reports import exact, exact_plots, plots, tables
from alignarena.reports.answer import answers
from alignarena.reports.completions import browsable
from alignarena.reports.page import write_report
from alignarena.reports.style import look
from alignarena.results.frame import Results, load_results
from alignarena.results.store import RunFolder


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Run folders of one study: limit, two numbers of labels, segments labelled both ways."""
    root = tmp_path_factory.mktemp("study")
    runs = [exact_folders.exact(root / "limit", setting="limit")]
    runs += [exact_folders.exact(root / f"budget-{labels}", labels=labels) for labels in (128, 512)]
    for kind in ("return", "regret"):
        runs.append(exact_folders.exact(root / kind, feedback_kind=kind, methods=("sft", "dpo", "cpl")))
    return [run.path for run in runs]


@pytest.fixture(scope="module")
def results(study: list[Path]) -> Results:
    return load_results(*study)


@pytest.fixture(scope="module")
def report(study: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(study, tmp_path_factory.mktemp("report") / "report").parent


@pytest.fixture(scope="module")
def html(report: Path) -> str:
    return (report / "index.html").read_text(encoding="utf-8")


def section(html: str) -> str:
    found = re.search(r'<section id="exact">(.*?)</section>', html, re.DOTALL)
    assert found is not None
    return found[1]


def rows(table: tables.Table | None) -> dict[str, dict[str, tables.Shown]]:
    assert table is not None
    return {row[0].text: dict(zip(table.headings, row, strict=True)) for row in table.shown}


def test_the_section_follows_the_leaderboard_and_says_how_to_read_it(html: str) -> None:
    assert re.findall(r'<section id="([^"]+)"', html)[:4] == ["answer", "leaderboard", "exact", "reward-kl"]
    assert '<a href="#exact">Exact laboratory</a>' in html
    text = section(html)
    assert "Setting limit: correctness, not a ranking" in text and "Setting budget" in text
    assert text.count("How to read it:") == 7  # the section, two tables, four plots
    assert "claims about the methods in this one world" in text


def test_the_full_table_is_written_with_infinities_and_blanks(report: Path) -> None:
    written = list(csv.DictReader(io.StringIO((report / "tables/exact.csv").read_text())))
    assert len(written) == 2 * (3 * len(exact_folders.METHODS) + 2 * 3)
    first = {row["method"]: row for row in written if row["setting"] == "limit" and row["seed"] == "0"}
    assert (first["rejection_sampling"]["objective_bias"], first["sft"]["objective_bias"]) == ("inf", "")
    assert (first["dpo"]["labels"], first["dpo"]["world"], first["dpo"]["beta"]) == ("", "0", "0.5")
    assert "| inf |" in (report / "tables/exact.md").read_text()
    assert "& inf &" in (report / "tables/exact.tex").read_text()


def test_the_bar_of_a_method_is_that_of_its_target(tmp_path: Path) -> None:
    errors = {"dpo": 0.6, "rejection_sampling": 0.5}
    folder = exact_folders.exact(tmp_path / "limit", setting="limit", errors=errors, failed=("cpl",))
    laboratory = exact.laboratory(load_results(folder.path))
    assert laboratory is not None and laboratory.budget is None
    found = rows(laboratory.limit)
    assert (found["dpo"]["bar"].text, found["dpo"]["bar met"].text) == (
        "J efficiency \u2265 0.95, held out within 0.05 of it",
        "missed",
    )
    assert found["rejection_sampling"]["bar"].text.startswith("learning error \u2264 0.05 \u00d7 KL of target = ")
    assert found["rejection_sampling"]["objective bias (nats)"].text == "\u221e"
    assert (found["cpl"]["bar met"].text, found["cpl"]["held out"].reason) == ("failed", "the run failed")
    assert found["sft"]["bar met"].reason == "no target of its own"


def test_correct_methods_meet_their_bars(results: Results) -> None:
    laboratory = exact.laboratory(results)
    assert laboratory is not None
    met = {method: row["bar met"].text for method, row in rows(laboratory.limit).items()}
    assert met == {"sft": "", "dpo": "met", "cpl": "met", "rejection_sampling": "met"}


def test_a_failed_run_is_a_row_of_the_budget_table(tmp_path: Path) -> None:
    folder = exact_folders.exact(tmp_path / "budget", failed=("dpo",))
    laboratory = exact.laboratory(load_results(folder.path))
    assert laboratory is not None and laboratory.limit is None
    assert rows(laboratory.budget)["dpo"]["reward"].reason == "the run failed"


def test_every_plot_has_its_data(results: Results) -> None:
    assert [name for name, _, _ in exact_plots.draw(results)] == list(exact_plots._CAPTIONS)


def test_plots_are_drawn_only_where_they_say_something(study: list[Path]) -> None:
    def names(*folders: Path) -> list[str]:
        return [name for name, _, _ in exact_plots.draw(load_results(*folders))]

    limit, few, _, by_return, _ = study
    assert names(limit) == ["exact-errors"]  # correctness is no comparison
    assert names(few) == ["exact-frontier", "exact-errors"]
    assert names(by_return) == ["exact-frontier", "exact-errors", "exact-segments"]


def test_nothing_of_the_limit_is_plotted_as_a_comparison(study: list[Path]) -> None:
    alone = {plot.name for plot in plots.draw(load_results(study[0]))}
    assert not {"gold", "reward_kl", "gold_proxy"} & alone
    together = load_results(*study[:2])
    assert plots._compared(together) == [f"budget-128/{method}" for method in exact_folders.METHODS]


def test_a_method_has_one_colour_whatever_its_folder(report: Path, html: str) -> None:
    for name in exact_plots._CAPTIONS:
        drawn = (report / f"plots/{name}.svg").read_text(encoding="utf-8")
        assert all(look(method)[0] in drawn for method in ("dpo", "cpl"))
    assert f'<span class="dot" style="background: {look("cpl")[0]}"></span>cpl' in section(html)


def test_no_policy_lies_above_the_frontier(results: Results) -> None:
    figure = next(figure for name, _, figure in exact_plots.draw(results) if name == "exact-frontier")
    curve, *others = [line.get_xydata() for line in figure.axes[0].lines]
    for points in others:
        for kl, reward in points:
            below = max(height for x, height in curve if x <= kl + 1e-12)
            above = min([height for x, height in curve if x >= kl - 1e-12], default=below)
            assert reward <= above + 1e-9


def test_the_star_is_the_optimum(results: Results) -> None:
    figure = next(figure for name, _, figure in exact_plots.draw(results) if name == "exact-frontier")
    [star] = [line for line in figure.axes[0].lines if "optimum" in str(line.get_label())]
    world, held = World(0), slice(PROMPTS)
    best = world.tilted(BETA)
    kl, reward = divergence(best, world.reference)[held].mean(), mean(best, world.gold)[held].mean()
    assert star.get_xydata()[0] == pytest.approx([kl, reward], abs=2e-3)  # the curve is interpolated


def test_the_answer_compares_nothing_in_the_limit(results: Results) -> None:
    limit, budget, *_ = answers(results)
    assert [kind for kind, _ in limit.lines] == ["none"]
    assert "correctness, not a ranking" in limit.lines[0][1]
    assert "summed over every completion" in dict(budget.lines)["basis"]
    assert any(kind == "cannot-tell" for kind, _ in budget.lines)  # two seeds of few prompts hardly ever can


def test_exact_figures_are_no_scores_of_single_completions(results: Results, html: str) -> None:
    whole = browsable(results)
    index, shown = json.loads(whole.index), json.loads(whole.chunks[0])["limit/dpo"][0][0]
    assert (index["metrics"], shown[-1]) == (["length"], [3.0])
    assert "exact objective" not in tables.further(results).headings
    assert "What gold is made of" not in html  # it has no parts that were scored
    assert json.loads(re.search(r'id="completions-data">(.*?)</script>', html, re.DOTALL)[1])["methods"]  # type: ignore[index]


def test_a_run_without_frontier_or_scores_still_has_a_report(tmp_path: Path) -> None:
    folder = exact_folders.exact(tmp_path / "run", methods=("sft", "dpo"), seeds=(0,))
    (folder.path / "extra/frontier.json").unlink()
    assert "exact-frontier" not in write_report([folder.path]).read_text(encoding="utf-8")
    for method in ("sft", "dpo"):
        folder.write_cell(method, 0, scores=[])
    assert '<section id="exact">' not in write_report([folder.path]).read_text(encoding="utf-8")
    assert not exact.full(load_results(folder.path))


def test_other_suites_have_no_such_section(finished_run: RunFolder, tmp_path: Path) -> None:
    path = write_report([finished_run.path], tmp_path / "report")
    assert "xact laboratory" not in path.read_text(encoding="utf-8")
    assert not list((tmp_path / "report").rglob("exact*"))
