"""``bench.json``: a list of entries, of the last time each was measured."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from alignarena.benchmarks.perf.entry import BARS, Entry
from alignarena.core.files import read_json, write_json

FILE = "bench.json"
_LIBRARIES = ("torch", "transformers", "trl", "peft")
Record = dict[str, Any]


def merge(path: Path, entries: Iterable[Entry]) -> None:
    """Put entries into a file, in place of older ones of the same name and work."""
    stored = {(record["name"], record["work"]): record for record in read_json(path, [])}
    stored |= {entry.key: _plain(entry.record()) | {"machine": machine()} for entry in entries}
    names = list(BARS)
    write_json(path, sorted(stored.values(), key=lambda record: names.index(record["name"])))


def problems(entries: Sequence[Entry]) -> list[str]:
    """Say which entries compare sides that did not give equal results, and in what."""
    return [
        f"{entry.name} ({entry.work}): {one.what} differ by {one.worst:.3g}, more than {one.tolerance:.3g}; "
        "its ratio means nothing"
        for entry in entries
        for one in entry.equality
        if not one.met
    ]


def machine() -> Record:
    """Say what an entry was measured on."""
    import torch

    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        **{name: version(name) for name in _LIBRARIES},
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
