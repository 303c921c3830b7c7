import json
import subprocess

import pytest

from alignarena.benchmarks.perf import __main__ as command
from alignarena.benchmarks.perf.entry import Equality, of_seconds
from alignarena.benchmarks.perf.store import FILE, merge


def entry(name="sft", work="w, LoRA r 16", worst=0.0, seconds=1.0):
    return of_seconds(
        [seconds], [3.0], name=name, opponent="TRL", work=work, unit="tokens/s", amount=1.0,
        equality=[Equality("losses", worst, 0.1)], tried={"sdpa": 0.5},
    )  # fmt: skip


@pytest.fixture
def measured(new_bench, monkeypatch):
    """Replaces all measuring by entries that are equal as far as is said."""

    def install(worst):
        monkeypatch.setattr(command, "_measures", lambda: [("sft", lambda bench, use_peft: entry(worst=worst))])
        monkeypatch.setattr("alignarena.benchmarks.perf.bench.new_bench", lambda *_: new_bench())

    return install


def test_equal_results_end_with_status_0(measured, tmp_path, capsys):
    measured(0.0)
    assert command.main(["--out", str(tmp_path), "--only", "sft"]) == 0
    (record,) = json.loads((tmp_path / FILE).read_text())
    assert (record["name"], record["ratio"], record["equal"]) == ("sft", 3.0, True)
    assert record["machine"]["threads"] >= 1
    assert "3.00" in capsys.readouterr().out


def test_unequal_results_fail_the_bench_and_are_kept(measured, tmp_path, capsys):
    measured(0.5)
    assert command.main(["--out", str(tmp_path), "--only", "sft"]) == 1
    assert "losses differ by 0.5, more than 0.1" in capsys.readouterr().err
    assert json.loads((tmp_path / FILE).read_text())[0]["equal"] is False


@pytest.mark.parametrize(("statuses", "wanted"), [([0, 0], 0), ([1, 0], 1), ([0, -9], 1)])
def test_all_comparisons_run_in_processes_of_their_own(monkeypatch, tmp_path, statuses, wanted):
    started = []

    def run(call, check):
        started.append(call[call.index("--only") + 1])
        return subprocess.CompletedProcess(call, statuses[len(started) - 1])

    monkeypatch.setattr(command, "_measures", lambda: [("dpo_live", None), ("sft", None)])
    monkeypatch.setattr(command.subprocess, "run", run)
    (tmp_path / FILE).write_text("[]")
    assert command.main(["--out", str(tmp_path)]) == wanted
    assert started == ["dpo_live", "sft"]  # the second one runs whatever the first one found
    assert not (tmp_path / FILE).exists()


def test_nothing_to_repeat_is_bad_input(capsys):
    assert command.main(["--repeats", "0"]) == 2
    assert "--repeats: must be at least 1" in capsys.readouterr().err


def test_a_later_run_replaces_only_what_it_measured(tmp_path):
    merge(tmp_path / FILE, [entry(), entry("dpo_live")])
    merge(tmp_path / FILE, [entry(seconds=2.0), entry(work="w, full fine-tuning")])
    records = json.loads((tmp_path / FILE).read_text())
    assert [(one["name"], one["work"], one["ratio"]) for one in records] == [
        ("dpo_live", "w, LoRA r 16", 3.0),
        ("sft", "w, LoRA r 16", 1.5),
        ("sft", "w, full fine-tuning", 3.0),
    ]
