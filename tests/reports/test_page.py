from __future__ import annotations

import base64
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from alignarena.core.errors import BadInput
from alignarena.reports import completions, page
from alignarena.reports.answer import answers
from alignarena.reports.completions import CHUNK, browsable
from alignarena.reports.page import write_report
from alignarena.reports.tracks import tracks
from alignarena.results.frame import load_results
from alignarena.results.store import RunFolder

SECTIONS = [
    *("answer", "leaderboard", "reward-kl", "gold-proxy", "wins", "training", "cost", "length", "behaviour"),
    *("judges", "failures", "completions", "methods", "provenance"),
]


class Page(HTMLParser):
    """What a browser would make of a page: its elements and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.cdata_elem is None:  # not inside a script or style
            self.text.append(data)


@pytest.fixture(scope="module")
def html(run_folders: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = run_folders.quickstart(tmp_path_factory.mktemp("page") / "quickstart", failed=("dpo",))
    return write_report([folder.path]).read_text(encoding="utf-8")


def embedded(html: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The index of the completions, and their chunks."""
    found = re.findall(r'<script type="application/json" id="completions-(\w+)">(.*?)</script>', html, re.DOTALL)
    (name, index), *chunks = found
    assert name == "data" and [number for number, _ in chunks] == [str(i) for i in range(len(chunks))]
    return json.loads(index), [json.loads(text) for _, text in chunks]


def test_sections_come_in_order_each_with_how_to_read_it(html: str) -> None:
    assert re.findall(r'<section id="([^"]+)"', html) == SECTIONS
    for section in re.split(r"<section ", html)[1:]:
        assert "How to read it:" in section


def test_the_page_loads_nothing_and_runs_only_its_own_script(html: str) -> None:
    parsed = Page(html)
    loading = {"img", "link", "iframe", "object", "embed", "base", "form", "video", "audio", "source"}
    assert not loading & {tag for tag, _ in parsed.elements}
    assert not [attrs for _, attrs in parsed.elements if any(name.startswith("on") for name in attrs)]
    types = [attrs.get("type") for tag, attrs in parsed.elements if tag == "script"]
    assert set(types[:-1]) == {"application/json"} and types[-1] is None
    addresses = {attrs.get("href") or attrs.get("xlink:href") or attrs.get("src") or "" for _, attrs in parsed.elements}
    assert all(one == "" or one.startswith(("#", "https://arxiv.org/abs/")) for one in addresses)
    assert "url(http" not in html and "@import" not in html and "@font-face" not in html
    assert "default-src 'none'" in html


def test_what_models_wrote_cannot_leave_its_place(html: str, run_folders: ModuleType) -> None:
    _, chunks = embedded(html)
    written = [one[0] for chunk in chunks for of_prompt in chunk["ppo"] for one in of_prompt]
    assert set(run_folders.NASTY) <= set(written)
    outside = html
    for raw in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', html, re.DOTALL):
        assert not set(raw) & set("<>&\u2028\u2029\u202e\x00")
        outside = outside.replace(raw, "")
    assert "alert(1)" not in outside and "<b>bold</b>" not in outside
    assert "&lt;b&gt;bold&lt;/b&gt;" in outside  # the error of the failed cell


def test_the_answer_is_given_in_words(finished_run: RunFolder) -> None:
    [answer] = answers(load_results(finished_run.path))
    lines = dict(reversed(answer.lines))
    assert lines["better"].startswith("Better than SFT in gold reward: ppo (+0.229 [+0.186, +0.272])")
    assert lines["worse"].startswith("Worse than SFT in gold reward: base")
    assert lines["cannot-tell"].startswith("Cannot be told from SFT: rejection_sampling (+0.025 [-0.009, +0.059])")
    assert "Cannot be told from each other: best_of_n and dpo." in dict(answer.lines).values()
    assert "claim about these checkpoints" in lines["unit"]
    assert "diagnostic" in lines["basis"]
    assert "base (0.44)" in lines["warning"]
    assert lines["margin"].startswith(
        "Not worse than SFT by more than 0.05 in gold reward: best_of_n, dpo, ppo and rejection_sampling; worse"
    )
    assert "track" not in lines


def test_tracks_are_told_apart(tmp_path: Path, run_folders: ModuleType) -> None:
    folder = run_folders.quickstart(tmp_path / "r", methods=("sft", "dpo", "ppo", "hir"))
    results = load_results(folder.path)
    [answer] = answers(results)
    kinds = [kind for kind, _ in answer.lines]
    first, second = (i for i, kind in enumerate(kinds) if kind == "track")
    assert "hir" not in " ".join(sentence for _, sentence in answer.lines[first:second])
    assert "Every pair among dpo and ppo" in answer.lines[second - 1][1]  # hir is in no pair with them
    apart, informed = tracks(results)
    assert [row[0].text for row in apart.board.shown] == ["sft", "dpo", "ppo"]
    assert [row[0].text for row in informed.board.shown] == ["sft", "hir"]
    html = write_report([folder.path]).read_text(encoding="utf-8")
    assert html.index("<h3>Preference-only") < html.index("<h3>Instruction-informed")


def test_why_a_run_gets_no_verdict_is_said(tmp_path: Path, run_folders: ModuleType) -> None:
    folder = run_folders.quickstart(tmp_path / "r", methods=("sft", "ppo"))
    folder.write_cell("ppo", 0, metrics=run_folders.training("ppo", lambda step: 0.02 * step))
    text = " ".join("".join(Page(write_report([folder.path]).read_text(encoding="utf-8")).text).split())
    rose = "training reward still rose: +0.140 (47 % of its whole rise) over the last 8 of 16 points, p < 0.001"
    assert f"No verdict: ppo (not converged: the {rose})." in text
    assert f"The {rose}." in text  # under its curves
    assert "Better than SFT" not in text


def test_of_many_methods_the_best_is_named_not_every_pair(tmp_path: Path, run_folders: ModuleType) -> None:
    methods = ("sft", "ppo", *(f"m{i}" for i in range(6)))
    [answer] = answers(load_results(run_folders.quickstart(tmp_path / "r", methods=methods).path))
    [sentence] = [sentence for kind, sentence in answer.lines if "Highest gold reward: ppo" in sentence]
    assert "it can be told from every other. Of 21 pairs" in sentence


def test_too_few_units_are_said_to_be_too_few(tmp_path: Path, run_folders: ModuleType) -> None:
    folder = run_folders.quickstart(tmp_path / "r", methods=("sft", "ppo", "dpo"), seeds=(0, 1, 2))
    [answer] = answers(load_results(folder.path))
    said = dict(answer.lines)["unit"]
    assert said.startswith("3 seeds: a claim about the methods")
    assert "could not give p below 0.25, where Holm's test over 2 methods asks for 0.025" in said


def test_rows_of_failed_methods_are_in_the_table_with_the_reason(html: str) -> None:
    text = " ".join("".join(Page(html).text).split())
    assert "No verdict: dpo (FAILED)." in text
    assert "\u2013 dpo: the run failed" in text
    assert "RunFailed: loss is NaN at step 3" in text


def test_notes_from_provenance_are_shown(html: str) -> None:
    text = " ".join("".join(Page(html).text).split())
    assert text.count("The model as given: an instruct model.") == 2  # under the row and on the card
    assert "KL: analytic upper bound" in text
    assert "alignarena run quickstart --out runs/quickstart" in text
    assert "<dt>schedule.learning_rate</dt><dd>5e-05</dd>" in html
    assert "the machine really spent 432 s" in text


def test_a_suite_without_gold_leaves_sections_out_with_a_reason(tmp_path: Path, run_folders: ModuleType) -> None:
    folder = run_folders.human_preferences(tmp_path / "hh")
    html = write_report([folder.path]).read_text(encoding="utf-8")
    text = " ".join("".join(Page(html).text).split())
    assert "left out, as this suite has no gold reward" in text
    assert "Better than SFT in win rate against SFT: dpo" in text
    assert "Reward model on held-out human pairs" in text and "harmless & <b>" in text
    assert "human accuracy" in text
    for name in ("leaderboard", "budget", "axes", "reward_model"):
        for suffix in ("csv", "md", "tex"):
            assert (folder.path / "report/tables" / f"{name}.{suffix}").stat().st_size > 0
    assert (folder.path / "report/tables/reward_model.csv").read_text().splitlines()[1] == "helpful,0.61,0.55,128"


def test_a_run_killed_before_anything_finished_still_has_a_report(tmp_path: Path, run_folders: ModuleType) -> None:
    folder = run_folders.start(tmp_path / "killed", ("sft", "dpo"), (0,))
    (tmp_path / "killed" / "provenance.json").unlink()
    text = write_report([folder.path]).read_text(encoding="utf-8")
    assert "Nothing was scored" in text
    assert "Not finished: sft/0, dpo/0." in text


def test_several_runs_give_one_report(tmp_path: Path, run_folders: ModuleType) -> None:
    first = run_folders.quickstart(tmp_path / "first", methods=("sft", "dpo"))
    second = run_folders.human_preferences(tmp_path / "hh")
    path = write_report([first.path, second.path], tmp_path / "both")
    assert path == tmp_path / "both/index.html"
    text = path.read_text(encoding="utf-8")
    assert "first/dpo" in text and "hh/dpo" in text
    assert set(embedded(text)[0]["methods"]) == {"first/sft", "first/dpo", "hh/sft", "hh/dpo"}
    assert not (first.path / "report").exists()


def test_completions_are_read_in_chunks_and_evenly_spread_where_they_are_too_many(finished_run: RunFolder) -> None:
    results = load_results(finished_run.path)
    whole = browsable(results)
    index = json.loads(whole.index)
    assert (len(index["prompts"]), len(whole.chunks), whole.packed, whole.left_out) == (80, 4, False, 0)
    first = json.loads(whole.chunks[0])
    assert len(first["ppo"]) == CHUNK
    gold = index["metrics"].index("gold")
    assert index["means"]["ppo"][0] == round(sum(one[-1][gold] for one in first["ppo"][0]) / 2, 4)
    half = browsable(results, most_bytes=sum(map(len, whole.chunks)) // 2)
    kept = [one["id"] for one in json.loads(half.index)["prompts"]]
    assert len(kept) + half.left_out == 80 and 30 <= len(kept) <= 42
    assert kept[-1] > "p070" and sum(map(len, half.chunks)) < 0.6 * sum(map(len, whole.chunks))


def test_many_completions_are_packed(finished_run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = browsable(load_results(finished_run.path))
    monkeypatch.setattr(completions, "_PLAIN_UP_TO", 1000)
    packed = browsable(load_results(finished_run.path))
    assert packed.packed and json.loads(packed.index)["packed"]
    assert [gzip.decompress(base64.b64decode(one)).decode() for one in packed.chunks] == plain.chunks
    assert sum(map(len, packed.chunks)) < sum(map(len, plain.chunks)) / 3


def test_only_papers_become_links() -> None:
    assert page._link("arXiv:2305.18290") == "https://arxiv.org/abs/2305.18290"
    assert page._link("javascript:alert(1)") == page._link("http://x") == page._link('https://x/"onclick') == ""


def test_no_run_folder_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="not a run folder"):
        write_report([tmp_path])


def test_the_same_run_gives_the_same_bytes(tmp_path: Path, run_folders: ModuleType) -> None:
    run = run_folders.quickstart(tmp_path / "run", methods=("sft", "ppo"))
    written = []
    for number in ("1", "2"):  # in processes of their own: hash seeds, and no cache of fonts or draws in between
        folder = tmp_path / number / "quickstart"
        shutil.copytree(run.path, folder)
        code = "import sys; from alignarena.reports.page import write_report; write_report(sys.argv[1:])"
        subprocess.run(
            [sys.executable, "-c", code, str(folder)], check=True, env={**os.environ, "PYTHONHASHSEED": number}
        )
        report = folder / "report"
        written.append({str(one.relative_to(report)): one.read_bytes() for one in report.rglob("*") if one.is_file()})
    assert written[0].keys() == written[1].keys()
    assert [name for name in written[0] if written[0][name] != written[1][name]] == []


def test_reports_open_without_torch() -> None:
    code = (
        "import sys, alignarena.reports.page, alignarena.reports.terminal, alignarena.results.frame; "
        "sys.exit(sorted({'torch', 'transformers', 'datasets', 'peft', 'trl'} & set(sys.modules)) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
