import subprocess
from types import SimpleNamespace

import pytest

from alignarena.benchmarks.perf import memory, memory_job
from alignarena.benchmarks.perf.mfu import model_utilisation
from alignarena.core.errors import RunFailed


def test_both_sides_measure_themselves(new_bench, monkeypatch):
    def here(command, **_):
        assert command[1:3] == ["-m", memory_job.__name__]
        memory_job.main(command[3:])
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", here)
    entry = memory.dpo_peak_memory(new_bench(), True)
    assert entry.equal, entry.equality
    assert entry.unit == "MiB"
    assert entry.ratio == entry.ours / entry.theirs


def test_a_process_that_dies_is_named(new_bench, monkeypatch):
    died = SimpleNamespace(returncode=-9, stderr="a\nlast words")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: died)
    with pytest.raises(RunFailed, match="memory of ours: the process ended with -9: last words"):
        memory.dpo_peak_memory(new_bench(), False)


@pytest.mark.parametrize("use_peft", [False, True])
def test_utilisation(new_bench, use_peft):
    entry = model_utilisation(new_bench(), use_peft)
    assert 0 < entry.ratio_low <= entry.ratio <= entry.ratio_high < 1
    assert (entry.details["adapter_weights"] > 0) == use_peft
