"""Results in a session: they show their leaderboard, escaped, and draw the report's plots."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

import alignarena
from alignarena.core.errors import BadInput
from alignarena.reports.notebook import ShownResults
from alignarena.results.frame import Results
from alignarena.results.store import RunFolder

EXACT = Path(__file__).parents[2] / "results" / "reference" / "exact"


@pytest.fixture(scope="module")
def results(finished_run: RunFolder) -> ShownResults:
    return alignarena.load_results(str(finished_run.path))


def test_results_show_their_leaderboard(results: ShownResults) -> None:
    row = results.leaderboard().set_index("method").loc["ppo"]
    (line,) = [line for line in repr(results).splitlines() if line.startswith("ppo ")]
    assert f"{row['gold_vs_sft']:.3f} [{row['gold_vs_sft_low']:.3f}, {row['gold_vs_sft_high']:.3f}]" in line
    assert "\x1b" not in repr(results)
    html = results._repr_html_()
    assert f"<td>{row['gold_reward']:.3f}" in html and html.count("<tr>") == 1 + len(results.methods)


def test_they_are_results_as_any(results: ShownResults, finished_run: RunFolder) -> None:
    plain = Results.load(finished_run.path)
    assert isinstance(results, Results) and results.compare("ppo", "dpo") == plain.compare("ppo", "dpo")
    assert results.frame.equals(plain.frame)


def test_a_method_named_like_markup_shows_as_text(run_folders: ModuleType, tmp_path: Path) -> None:
    folder = run_folders.start(tmp_path / "run", ("sft", "<b onload=x>"), (0,))
    run_folders.write_cell(folder, "sft", 0)
    shown = alignarena.load_results(str(folder.path))._repr_html_()
    tags: set[str] = set()
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: tags.add(tag)  # type: ignore[method-assign]
    parser.feed(shown)
    assert tags <= {"table", "thead", "tbody", "tr", "th", "td", "h4"} and "&lt;b onload=x&gt;" in shown


def test_plots_are_figures_that_pyplot_no_longer_holds(results: ShownResults) -> None:
    before = plt.get_fignums()
    drawn = [results.plot_frontier(), results.plot_training("dpo"), results.plot_gold(), results.plot("lengths")]
    assert all(isinstance(figure, Figure) for figure in drawn) and plt.get_fignums() == before
    assert "gold reward" in results.plot_frontier().axes[0].get_ylabel()
    assert {"plot_gold", "plot_reward_kl", "plot_frontier", "plot_exact_errors"} <= set(dir(results))


def test_the_exact_frontier_is_drawn_where_there_is_one() -> None:
    exact = alignarena.load_results(str(EXACT))
    labels = [line.get_label() for line in exact.plot_frontier().axes[0].lines]
    assert "exact frontier" in labels


def test_what_cannot_be_drawn_says_why(results: ShownResults) -> None:
    with pytest.raises(BadInput, match="no plot 'gild'; did you mean 'gold'"):
        results.plot("gild")
    with pytest.raises(BadInput, match="has no data for the plot 'exact-labels'"):
        results.plot_exact_labels()
    with pytest.raises(BadInput, match="no method 'dpoo'"):
        results.plot_training("dpoo")
    for name in ("plot_gild", "leaderbord"):
        with pytest.raises(AttributeError, match=f"has no attribute '{name}'"):
            getattr(results, name)
