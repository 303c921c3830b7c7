"""Studies: variants laid over a suite, a run folder each, one report; and the threads that a suite grants its cells."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import alignarena
from alignarena import cli
from alignarena.benchmarks import study, suite, suite_file, sweep
from alignarena.benchmarks.suite import load_suite, resolved, suite_digest
from alignarena.benchmarks.suite_file import variants_of
from alignarena.core.errors import BadInput, RunFailed
from alignarena.core.files import read_json, read_jsonl
from alignarena.results.frame import STUDY, load_results

STUDY_FILE = """\
data: {dataset: quickstart, sizes: {train: 8}}
methods:
  dpo: {beta: 0.3}
  sft:
variants:
  noisy:
    feedback: {noise: 0.5}
    methods: {dpo: {label_smoothing: 0.1}}
  same:
  small-2:
    data: {sizes: {reward_model: 4}}
    seeds: [3, 4]
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    def write(text: str, name: str = "mine.yaml") -> str:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return str(tmp_path / name)

    return write


# -- the file ---------------------------------------------------------------------------------------------------------


def test_a_variant_is_the_suite_with_its_own_keys_over_it(write: Callable[..., str]) -> None:
    file = write(STUDY_FILE)
    assert variants_of(file) == ["noisy", "same", "small-2"]
    noisy, same, small = (load_suite(f"{file}/{name}") for name in variants_of(file))
    assert [one.name for one in (noisy, same, small)] == ["mine/noisy", "mine/same", "mine/small-2"]
    assert noisy.feedback.noise == 0.5 and noisy.methods == {"dpo": {"beta": 0.3, "label_smoothing": 0.1}, "sft": {}}
    assert same.feedback.noise == 0.1 and same.methods == {"dpo": {"beta": 0.3}, "sft": {}}
    assert small.data.sizes == {"train": 8, "reward_model": 4} and small.seeds == (3, 4) and same.seeds == (0,)
    given = {"data.sizes.reward_model": 6, "method.dpo.beta": 0.7, "name": "other"}
    over = [load_suite(f"{file}/{name}", given) for name in variants_of(file)]
    assert {(one.data.sizes["reward_model"], one.methods["dpo"]["beta"]) for one in over} == {(6, 0.7)}
    assert [one.name for one in over] == ["other/noisy", "other/same", "other/small-2"]


def test_a_study_where_one_suite_is_needed_names_its_variants(write: Callable[..., str]) -> None:
    file = write(STUDY_FILE)
    for call in (load_suite, sweep.planned, sweep.run):
        with pytest.raises(BadInput, match=r"mine.yaml:5: .*is a study, not one suite; give one of .*mine.yaml/noisy"):
            call(file)
    assert variants_of("smoke") == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("{noise: 0.5}", "{noisee: 0.5}", "mine.yaml:7: variant noisy: unknown key 'feedback.noisee'"),
        ("{noise: 0.5}", "{noise: -1}", "mine.yaml:7: variant noisy: feedback.noise: must be 0 or more"),
        ("label_smoothing", "label_smooth", "mine.yaml:8: variant noisy: unknown key 'methods.dpo.label_smooth'"),
        ("{beta: 0.3}", "{betta: 0.3}", "mine.yaml:3: variant noisy: unknown key 'methods.dpo.betta'"),
        ("  same:", "  same: 3", "mine.yaml:9: variants.same: expected a mapping"),
        ("  same:", "  sa/me:", "mine.yaml:9: variants.sa/me: cannot be the name of a folder"),
        ("  same:", "  ..:", "mine.yaml:9: variants...: cannot be the name of a folder"),
        ("  same:", "  report:", "mine.yaml:9: variants.report: cannot be the name of a folder"),
        ("  same:", "  same: {name: x}", "mine.yaml:9: variants.same.name: belongs to the study"),
        ("  same:", "  same: {extends: smoke}", "mine.yaml:9: variants.same.extends: belongs to the study"),
    ],
)
def test_a_wrong_variant_names_file_line_and_key(write: Callable[..., str], old: str, new: str, said: str) -> None:
    assert old in STUDY_FILE
    with pytest.raises(BadInput) as error:
        study.run(write(STUDY_FILE.replace(old, new)))
    assert said in str(error.value)


@pytest.mark.parametrize("variants", ["", " {}", " [a, b]", " noisy"])
def test_variants_that_are_no_mapping(variants: str, write: Callable[..., str]) -> None:
    with pytest.raises(BadInput, match=r"mine.yaml:5: variants: expected a mapping"):
        load_suite(write(STUDY_FILE.partition("variants:")[0] + f"variants:{variants}\n"))


def test_unknown_variants_name_the_nearest(write: Callable[..., str]) -> None:
    with pytest.raises(BadInput, match=r"mine.yaml:5: no variant 'nosy'; did you mean 'noisy'\?"):
        load_suite(write(STUDY_FILE) + "/nosy")
    with pytest.raises(BadInput, match=r"smoke.yaml: the suite has no variants, so 'noisy' cannot be one"):
        load_suite("smoke/noisy")
    with pytest.raises(BadInput, match="suite file smok/noisy does not exist"):
        load_suite("smok/noisy")


def test_a_study_may_extend_one_and_a_suite_a_variant(write: Callable[..., str]) -> None:
    write(STUDY_FILE)
    more = write("extends: mine.yaml\nvariants: {noisy: {seeds: [5]}, other: {sft: {batch_size: 4}}}\n", "more.yaml")
    assert variants_of(more) == ["noisy", "same", "small-2", "other"]
    noisy = load_suite(f"{more}/noisy")
    assert (noisy.name, noisy.seeds, noisy.feedback.noise) == ("more/noisy", (5,), 0.5)
    one = load_suite(write("extends: mine.yaml/noisy\nseeds: [6]\n", "one.yaml"))
    assert (one.name, one.seeds, one.feedback.noise) == ("one", (6,), 0.5)
    again = write("extends: mine.yaml/noisy\nvariants: {a: {seeds: [7]}}\n", "again.yaml")
    assert variants_of(again) == ["a"] and load_suite(f"{again}/a").name == "again/a"


def test_a_resolved_variant_loads_as_the_same_suite(write: Callable[..., str]) -> None:
    noisy = load_suite(write(STUDY_FILE) + "/noisy")
    assert load_suite(write(json.dumps(resolved(noisy)), "suite.resolved.yaml")) == noisy


def test_threads_are_checked_and_not_in_the_digest(write: Callable[..., str]) -> None:
    file = f"{write(STUDY_FILE)}/same"
    assert suite_digest(load_suite(file, {"threads": 1})) == suite_digest(load_suite(file))
    with pytest.raises(BadInput, match="--set threads: variant same: threads: must be 0"):
        load_suite(file, {"threads": -1})


def test_lists_say_how_many_variants_a_study_has(
    write: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(f"summary: two kinds\nrevision: 1\n{STUDY_FILE}")
    write(f"summary: one kind\nrevision: 1\n{STUDY_FILE.partition('variants:')[0]}", "plain.yaml")
    for module in (suite, suite_file):
        monkeypatch.setattr(module, "SUITES", tmp_path)
    assert cli.main(["list", "suites", "--json"]) == 0
    listed = {row["name"]: row["variants"] for row in json.loads(capsys.readouterr().out)}
    assert listed == {"mine": 3, "plain": None}
    assert [one.variants for one in suite.list_suites()] == [("noisy", "same", "small-2"), ()]
    assert load_suite("mine/same").name == "mine/same"


# -- whole runs -------------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny_study(finished_tiny_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Two variants of the tiny suite, which differ in a hyperparameter alone, with a cache that holds most of it."""
    shutil.copytree(finished_tiny_run.cache, tmp_path / "cache", dirs_exist_ok=True)
    monkeypatch.setenv("ALIGNARENA_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "tiny_study.yaml"
    variants = "variants: {weak: {}, strong: {methods: {dpo: {beta: 5.0}}}}"
    file.write_text(f"extends: {finished_tiny_run.suite}\nthreads: 1\n{variants}\n")
    return str(file)


GIVEN = ["--methods", "sft,dpo", "--jobs", "1"]


def test_a_study_leaves_a_run_folder_a_variant_and_one_report(
    tiny_study: str, finished_tiny_run: Any, no_model: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    before = torch.get_num_threads()
    assert cli.main(["run", tiny_study, *GIVEN]) == 0
    assert torch.get_num_threads() == before
    folder = Path("runs/tiny_study")
    printed = capsys.readouterr().out
    assert "weak/dpo" in printed and printed.count("report: ") == 1 and f"report: {folder}/report/index" in printed
    assert read_json(folder / STUDY) == {"name": "tiny_study", "variants": ["weak", "strong"]}
    for variant in ("weak", "strong"):
        for name in ("suite.resolved.yaml", "provenance.json", "status.json", "results.parquet", "dpo/0/DONE"):
            assert (folder / variant / name).is_file(), (variant, name)
    weak = folder / "weak" / "dpo" / "0" / "scores.jsonl"
    assert weak.read_bytes() == (finished_tiny_run.folder / "dpo" / "0" / "scores.jsonl").read_bytes()
    results = load_results(folder)
    assert results.methods == ["weak/sft", "weak/dpo", "strong/sft", "strong/dpo"]  # one digest, and not merged
    assert results.entry("strong/dpo").cells[0].config["beta"] == 5.0
    rows = (folder / "report" / "tables" / "leaderboard.csv").read_text().splitlines()[1:]
    assert [row.partition(",")[0] for row in rows] == results.methods
    no_model()
    assert cli.main(["run", tiny_study, *GIVEN]) == 0  # a second run starts no work
    assert cli.main(["run", f"{tiny_study}/weak", *GIVEN]) == 0  # nor one of a variant, in the same folder
    assert cli.main(["report", str(folder), "--out", "elsewhere"]) == 0 and Path("elsewhere/index.html").is_file()
    capsys.readouterr()
    assert cli.main(["compare", str(folder), "weak/dpo", "strong/dpo"]) == 0
    assert "weak/dpo - strong/dpo: gold" in capsys.readouterr().out
    assert cli.main(["score", str(folder), "--evaluators", "behaviour"]) == 0
    assert capsys.readouterr().out.endswith(f"report: {folder}/report/index.html\n")
    with pytest.raises(BadInput, match="holds a study; choose another --out"):
        sweep.run(finished_tiny_run.suite, out=folder)


FAILING = '''
"""Raises under one variant."""

from dataclasses import dataclass

from alignarena.core.registry import method


@method("failing", paper="none")
@dataclass(frozen=True)
class Failing:
    bad: bool = False

    def align(self, task, lab):
        if self.bad:
            raise ValueError("it diverged")
        return task.policy
'''


def test_what_fails_in_a_variant_is_named_and_stops_no_other(
    tiny_study: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from alignarena.core import registry

    registry.load_all()
    monkeypatch.setattr(registry, "METHODS", dict(registry.METHODS))
    Path("failing.py").write_text(FAILING)
    variants = "{a: {methods: {failing: {bad: true}}}, b: {model: {model_name_or_path: no/model}}, c: {}}"
    Path("study.yaml").write_text(f"extends: {tiny_study}/weak\nvariants: {variants}\n")
    given = ["--methods", "failing.py,sft", "--jobs", "1", "--out", "out"]
    assert cli.main(["run", "study.yaml", *given]) == 1
    said = capsys.readouterr().err
    assert "variant b: model 'no/model' cannot be loaded" in said
    assert "alignarena: a/failing/0, b (model 'no/model' cannot be loaded" in said
    assert "failed; see FAILED in out/a/failing/0, then run again" in said
    status = load_results("out").leaderboard().set_index("method")["status"]
    assert status["a/failing"] == "FAILED" and status["a/sft"] == status["c/sft"] == status["c/failing"] == "DONE"
    with pytest.raises(RunFailed, match=r"^model 'no/model' cannot be loaded"):  # the first, where every variant ends
        study.run("study.yaml", out="none", methods=["sft"], set={"model.model_name_or_path": "no/model"})
    failing = {"methods": ["sft"], "out": "out", "jobs": 1}
    with pytest.raises(RunFailed, match=r"^b \(model 'no/model'.*\) failed; put that right, then run again"):
        alignarena.run("study.yaml", **failing)


def test_a_dry_run_plans_every_variant(tiny_study: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", tiny_study, "--dry-run", "--methods", "dpo"]) == 0
    printed = capsys.readouterr().out
    assert "suite tiny_study/weak" in printed and "suite tiny_study/strong" in printed and "beta=5.0" in printed
    assert not Path("runs").exists()


def test_folders_of_something_else_are_refused(copied_run: Any, tiny_study: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds the run of a single suite; choose another --out"):
        study.run(tiny_study, out=copied_run.folder)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / STUDY).write_text('{"name": "another", "variants": []}')
    with pytest.raises(BadInput, match="holds the study 'another'"):
        study.run(tiny_study, out=tmp_path / "other")
    with pytest.raises(BadInput, match="no variant of this study has begun"):
        load_results(tmp_path / "other")


def test_one_thread_a_cell_whatever_runs_the_cell(
    tiny_study: str, finished_tiny_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    attempt = sweep.Sweep.attempt

    def watched(self: sweep.Sweep, name: str, seed: int) -> bool:
        done = attempt(self, name, seed)
        found.append(torch.get_num_threads())
        return done

    monkeypatch.setattr(sweep.Sweep, "attempt", watched)
    monkeypatch.delenv("OMP_NUM_THREADS")
    before = torch.get_num_threads()
    _, failed = sweep.run(f"{tiny_study}/weak", out="alone", methods=["sft"], jobs=1)
    assert (failed, found) == ([], [1]) and torch.get_num_threads() == before
    _, failed = sweep.run(f"{tiny_study}/weak", out="two", methods=["sft", "dpo"], jobs=2)
    assert failed == []
    for method in ("sft", "dpo"):
        rows = read_jsonl(tmp_path / "two" / method / "0" / "scores.jsonl")
        assert rows == read_jsonl(finished_tiny_run.folder / method / "0" / "scores.jsonl")
