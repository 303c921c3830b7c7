"""How fast and how large: what finished stages on this machine took, else a probe of its matrix products."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignarena.benchmarks.counting import Stage
from alignarena.core.errors import BadInput
from alignarena.core.files import read_json
from alignarena.core.records import Ledger

_PROBE_SECONDS, _PROBE_WIDTH = 0.2, 1024
_LEAST_SECONDS = 1.0  # shorter stages say more about overheads than about rates
# Measured on 2 cores with a model of 135 M parameters: how much of a plain matrix product's rate a stage reaches.
_SHARE = {"sample": 0.2}
_OTHER_SHARE = 0.6


@dataclass(frozen=True)
class Rates:
    """Floating-point operations a second by stage and by verb, and where they come from."""

    measured: dict[str, float]
    peak_memory_mib: float  # of the stages measured; 0 where there are none
    probed: float  # of a plain matrix product; 0 where every stage was measured
    source: str

    def seconds(self, stage: Stage) -> float:
        """Return the seconds a stage would take."""
        if not stage.ledger.flops:
            return 0.0
        verb = stage.name.partition(" ")[0]
        rate = self.measured.get(stage.name) or self.measured.get(verb)
        return stage.ledger.flops / (rate or self.probed * _SHARE.get(verb, _OTHER_SHARE))


def rates(cache: Path, stages: Iterable[Stage], precision: str) -> Rates:
    """Return the rates of this machine.

    Args:
        cache: The folder of finished stages, read only.
        stages: What is to be timed: the machine is probed if some of it was never measured.
        precision: ``bf16`` or ``fp32``, for the probe.
    """
    flops, seconds = defaultdict[str, float](float), defaultdict[str, float](float)
    peak = 0.0
    for record in _records(cache):
        ledger = Ledger.from_dict(record["ledger"])
        if ledger.flops and ledger.seconds >= _LEAST_SECONDS:
            peak = max(peak, ledger.peak_memory_mib)
            for name in (str(record["stage"]), str(record["verb"])):
                flops[name] += ledger.flops
                seconds[name] += ledger.seconds
    measured = {name: flops[name] / seconds[name] for name in flops}
    missing = {stage.name.partition(" ")[0] for stage in stages if stage.ledger.flops} - measured.keys()
    probed = _probe(precision) if missing else 0.0
    found = [f"finished stages in {cache}"] if measured else []
    if missing:
        shares = f"{_SHARE['sample']:.0%} (sampling) and {_OTHER_SHARE:.0%} (the rest)"
        found.append(f"a {_PROBE_SECONDS} s probe, {probed / 1e9:.0f} GFLOP/s in {precision}, taken at {shares}")
    return Rates(measured, peak, probed, " and ".join(found))


def _records(cache: Path) -> Iterable[dict[str, Any]]:
    for path in sorted(cache.glob("*/record.json")):
        try:
            record = read_json(path)
        except BadInput:  # a stage that its own run will find broken and make again
            continue
        if isinstance(record, dict) and {"ledger", "stage", "verb"} <= record.keys():
            yield record


def _probe(precision: str) -> float:
    """Return the floating-point operations a second of a square matrix product on the device that would be used."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    matrix = torch.ones(_PROBE_WIDTH, _PROBE_WIDTH, dtype=kind, device=device)
    float((matrix @ matrix)[0, 0])  # the first product pays for set-up
    products, started = 0, time.perf_counter()
    while time.perf_counter() - started < _PROBE_SECONDS:
        float((matrix @ matrix)[0, 0])  # reading a number waits for the device
        products += 1
    return products * 2.0 * _PROBE_WIDTH**3 / (time.perf_counter() - started)
