"""Peak memory of DPO, each side in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import save_file

from alignarena.benchmarks.perf.bench import Bench
from alignarena.benchmarks.perf.entry import Entry, absolute
from alignarena.benchmarks.perf.ours import first_adapter, order
from alignarena.benchmarks.perf.terms import Settings, Terms
from alignarena.benchmarks.perf.training import DUELS
from alignarena.benchmarks.perf.work import Comparison
from alignarena.core.errors import RunFailed
from alignarena.core.files import read_json, write_json
from alignarena.harness.backbone import Backbone

JOB = "alignarena.benchmarks.perf.memory_job"
STEPS = 2  # the optimiser's state is there from the second on
Side = Literal["ours", "theirs"]


def dpo_peak_memory(bench: Bench, use_peft: bool) -> Entry:
    """Measure the largest memory of two DPO steps with a live reference model, imports and weights included.

    Each side runs once: a peak is no timing, and every process costs a model and two steps.
    """
    duel, batch = DUELS[0], bench.sizes.pairs
    terms = bench.terms(use_peft, batch, STEPS)
    data = [one.cut(2) for one in bench.dialogues.take(batch * STEPS)]
    settings, _ = duel.tried(bench)
    ours = _alone("ours", terms, settings, data, bench.folder)
    opposite = _alone("theirs", terms, settings, [data[i] for i in order(len(data))], bench.folder)
    tolerance = duel.tolerance if terms.precision == "bf16" else 1e-3
    ratio = ours["peak_mib"] / opposite["peak_mib"]
    return Entry(
        name="dpo_peak_memory", opponent=duel.opponent, ratio=ratio, ratio_low=ratio, ratio_high=ratio,
        ours=ours["peak_mib"], theirs=opposite["peak_mib"], unit="MiB",
        work=f"{bench.dialogues.label}, {batch} prompts a step, {terms.training}", repeats=1,
        equality=(absolute("losses of both processes", ours["losses"], opposite["losses"], tolerance),),
        details={"settings": settings, "precision": terms.precision, "steps": STEPS},
    )  # fmt: skip


def _alone(side: Side, terms: Terms, settings: Settings, data: Sequence[Comparison], parent: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        job = Path(folder) / "job.json"
        write_json(job, {"side": side, "terms": asdict(terms), "settings": asdict(settings), "folder": folder,
                         "data": [asdict(one) for one in data]})  # fmt: skip
        if terms.use_peft and side == "theirs":
            save_file(first_adapter(Backbone(terms.config)), Path(folder) / "adapter.safetensors")
        done = subprocess.run([sys.executable, "-m", JOB, str(job)], capture_output=True, text=True, check=False)
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:] or ["no message"]
            raise RunFailed(f"measuring the memory of {side}: the process ended with {done.returncode}: {last[0]}")
        found: dict[str, Any] = read_json(Path(folder) / "answer.json")
        return found
