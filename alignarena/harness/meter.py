"""What work costs: tokens and steps as they happen, seconds and peak memory around it."""

from __future__ import annotations

import contextlib
import ctypes
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from alignarena.core.records import Ledger

_MIB = 2**20
_highest = 0.0  # MiB, over all peaks that were reset


class Meter:
    """Adds up one ledger. Nested verbs share it, so work inside a fit is counted once."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self._start: float | None = None  # of the block under way
        self.met: Counter[str] = Counter()  # degenerate inputs by kind, and what they are among

    def add(self, **counts: float) -> None:
        """Add counts by their names in :class:`Ledger`."""
        self.ledger = self.ledger + Ledger(**counts)  # type: ignore[arg-type]

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Add the seconds of a block and the peak memory while it ran."""
        reset_peak_memory()
        self._start = time.perf_counter()
        try:
            yield
        finally:
            self.ledger, self._start = self.so_far + Ledger(peak_memory_mib=peak_memory_mib()), None

    @property
    def so_far(self) -> Ledger:
        """The ledger with the seconds of the block under way."""
        seconds = time.perf_counter() - self._start if self._start is not None else 0.0
        return self.ledger + Ledger(seconds=seconds)

    def restore(self, ledger: Ledger, met: Mapping[str, int]) -> None:
        """Go on from a checkpoint's counts: work done before a kill is charged, and what it met counted, once too."""
        self.ledger, self.met = replace(ledger), Counter(met)


def reset_peak_memory() -> None:
    """Start a new peak where the system allows it (Linux), else the peak of the process stands."""
    global _highest
    _highest = lifetime_peak_mib()
    with contextlib.suppress(OSError, AttributeError):  # glibc keeps freed activations, gigabytes of them, until told
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    cuda = _cuda()
    if cuda is not None:
        cuda.reset_peak_memory_stats()


def lifetime_peak_mib() -> float:
    """Return the largest memory this process ever had, in MiB."""
    return max(_highest, peak_memory_mib())


def peak_memory_mib() -> float:
    """Return the largest memory since the last reset in MiB: of the device if there is one, else of the process."""
    cuda = _cuda()
    if cuda is not None:
        return float(cuda.max_memory_allocated()) / _MIB
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / _MIB if sys.platform == "darwin" else peak / 1024


def _cuda() -> Any:
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_available() else None
