"""More than one process: killed ones, ones that share a cache, ones that share the work."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

from alignarena.core.records import Ledger
from alignarena.harness.backbone import Backbone
from alignarena.harness.cache import Cache
from alignarena.harness.lab import HarnessLab

HERE = Path(__file__).parent
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}


def program(name: str) -> Any:
    spec = spec_from_file_location(name, HERE / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def one_fit(model: Path, cache: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Start the program, wait until it has loaded; yields it and the file whose presence lets it go."""
    ready, go = tmp_path / "ready", tmp_path / "go"
    command = [sys.executable, str(HERE / "one_fit.py"), str(model), str(cache), str(ready), str(go)]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        until(ready.exists, process)
        yield process, go
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def until(holds: Callable[[], Any], process: subprocess.Popen[str], seconds: float = 120) -> None:
    """Wait, unless the process has ended."""
    end = time.monotonic() + seconds
    while not holds():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.002)


def bill(ledger: Ledger) -> Ledger:
    return replace(ledger, seconds=0.0, peak_memory_mib=0.0)


def adapter(lab: HarnessLab, key: str) -> bytes:
    return (lab.cache.path(key) / "adapter_model.safetensors").read_bytes()


def test_a_killed_process_is_continued_to_the_same_end(
    tiny_model_dir: Path, tiny_backbone: Backbone, tmp_path: Path
) -> None:
    cache = tmp_path / "killed"
    with one_fit(tiny_model_dir, cache, tmp_path) as (process, go):
        go.touch()
        until(lambda: list(cache.glob("*.partial/state")), process)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert list(cache.glob("*.partial"))  # it was under way
    work = program("one_fit").work
    killed, whole = (HarnessLab(tiny_backbone, Cache(tmp_path / name), 0) for name in ("killed", "whole"))
    key = work(whole)
    assert work(killed) == key
    assert adapter(killed, key) == adapter(whole, key)
    assert bill(killed.account.charged) == bill(whole.account.charged)


def test_two_processes_share_a_cache_and_compute_a_stage_once(
    tiny_model_dir: Path, tiny_backbone: Backbone, tmp_path: Path
) -> None:
    cache = tmp_path / "shared"
    lab = HarnessLab(tiny_backbone, Cache(cache), 0)
    with one_fit(tiny_model_dir, cache, tmp_path) as (process, go):
        go.touch()
        key = program("one_fit").work(lab)
        printed, complaints = process.communicate(timeout=120)
        assert process.returncode == 0, complaints
    other = json.loads(printed)
    assert other["digest"] == key
    assert Ledger.from_dict(other["charged"]) == lab.account.charged  # seconds too: one record a stage
    here = [stage["hit"] for stage in lab.account.stages]
    assert [one + two for one, two in zip(here, other["hits"], strict=True)] == [1, 1]


def test_two_processes_share_the_work(tiny_model_dir: Path, tiny_backbone: Backbone, tmp_path: Path) -> None:
    # without mpirun, `accelerate launch --cpu` starts one process whatever --num_processes says; torchrun starts two
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
        str(HERE / "two_processes.py"), str(tiny_model_dir), str(tmp_path / "together"), str(tmp_path),
    ]  # fmt: skip
    environment = {**ENVIRONMENT, "ACCELERATE_USE_CPU": "true"}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        alone, tensors = program("two_processes").results(tiny_backbone, tmp_path / "alone")  # meanwhile
        try:
            printed, _ = process.communicate(timeout=200)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, printed
    together = json.loads((tmp_path / "plain.json").read_text())
    assert (alone["processes"], together["processes"]) == (1, 2)
    assert together["completions"] == alone["completions"]
    assert together["prompts"] == alone["prompts"]
    for found, expected in zip(together["logps"], alone["logps"], strict=True):
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-5)
    for name in ("scores", "one row"):
        assert together[name] == pytest.approx(alone[name], rel=1e-5, abs=1e-5)
    assert together["ledger"] == pytest.approx(alone["ledger"])
    for key, value in load_file(tmp_path / "tensors.safetensors").items():
        assert_close(value, tensors[key], atol=1e-4, rtol=1e-4, msg=lambda text, key=key: f"{key}: {text}")
