import json

import pytest

from alignarena.benchmarks.perf import sweep_sharing
from alignarena.benchmarks.perf.sweep_sharing import Cost
from alignarena.core.errors import RunFailed


def test_shares_are_of_wall_and_of_cpu_seconds(monkeypatch, tmp_path):
    asked = []

    def run(suite, options):
        asked.append((suite, list(options)))
        return Cost(60.0, 100.0) if not options else Cost(50.0, 50.0)

    monkeypatch.setattr(sweep_sharing, "_run", run)
    assert sweep_sharing.main(["--out", str(tmp_path), "--only", "sweep_sharing"]) == 0
    found = json.loads((tmp_path / "sweep.json").read_text())["sweep_sharing"]
    assert asked[0] == ("quickstart", [])
    assert [options[1] for _, options in asked[1:]] == list(sweep_sharing.TRAINED)
    assert (found["ratio"], found["cpu_ratio"], found["met"]) == (0.3, 0.5, True)
    assert found["alone"]["dpo"] == {"seconds": 50.0, "cpu_seconds": 50.0}


def test_a_run_that_fails_is_named():
    with pytest.raises(RunFailed, match=r"run quickstart .* --nonsense did not finish: alignarena: .*nonsense"):
        sweep_sharing._run("quickstart", ["--nonsense"])
