import json

import pytest

from alignarena.benchmarks.perf import sweep_sharing
from alignarena.benchmarks.perf.sweep_sharing import Cost
from alignarena.benchmarks.suite import load_suite
from alignarena.core.errors import RunFailed


@pytest.mark.parametrize(("name", "bar", "met"), [("sweep_sharing", 0.6, True), ("whole_sweep_sharing", 0.5, True)])
def test_shares_are_of_wall_and_of_cpu_seconds(name, bar, met, monkeypatch, tmp_path):
    asked = []

    def run(suite, options):
        flag, methods, *jobs = options
        assert (suite, flag) == ("quickstart", "--methods")
        assert jobs == (["--jobs", "1"] if asked else [])  # alone: one job, beside others
        asked.append(methods.split(","))
        return Cost(60.0, 100.0) if len(asked) == 1 else Cost(50.0, 50.0)

    monkeypatch.setattr(sweep_sharing, "_run", run)
    assert sweep_sharing.main(["--out", str(tmp_path), "--only", name]) == 0
    found = json.loads((tmp_path / "sweep.json").read_text())[name]
    rows, *alone = asked
    assert sorted(one for (one,) in alone) == sorted(set(rows) - {"base", "best_of_n", "prompted"})
    assert (found["ratio"], found["cpu_ratio"]) == (60 / (50 * len(alone)), 100 / (50 * len(alone)))
    assert (found["bar"], found["met"]) == (bar, met)
    assert found["alone"]["dpo"] == {"seconds": 50.0, "cpu_seconds": 50.0}


def test_the_whole_sweep_is_all_of_the_quickstart():
    assert set(sweep_sharing.ALL) == set(load_suite("quickstart").methods)


def test_a_run_that_fails_is_named():
    with pytest.raises(RunFailed, match=r"run quickstart .* --nonsense did not finish: alignarena: .*nonsense"):
        sweep_sharing._run("quickstart", ["--nonsense"])
