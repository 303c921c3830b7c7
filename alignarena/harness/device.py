"""What precision and how many threads this machine should use, and why."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from alignarena.core.errors import BadInput

if TYPE_CHECKING:
    import torch

_BF16_FLAGS = ("avx512_bf16", "amx_bf16")  # measured 2-3x the fp32 rate of matrix products; emulated bf16 is slower

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def choose_precision(requested: str = "auto") -> tuple[str, str]:
    """Choose ``bf16`` or ``fp32`` by what the machine multiplies fastest.

    Returns:
        The precision and the reason for it, in words.

    Raises:
        BadInput: The request is neither of the two nor ``auto``.
    """
    import torch

    if requested not in ("auto", "bf16", "fp32"):
        raise BadInput(f"precision {requested!r} is not one of auto, bf16, fp32")
    if requested != "auto":
        return requested, "asked for"
    if torch.cuda.is_available():
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16", f"{torch.cuda.get_device_name(0)} multiplies bf16 natively"
        return "fp32", f"{torch.cuda.get_device_name(0)} has no native bf16"
    if torch.backends.mps.is_available():
        return "fp32", "fp32 is the safe choice on an Apple GPU, which we could not try"
    found = [flag for flag in _BF16_FLAGS if flag in cpu_flags()]
    if found:
        return "bf16", f"this CPU multiplies bf16 natively ({found[0]})"
    return "fp32", "this CPU has no native bf16 (avx512_bf16 or amx_bf16)"


@functools.cache
def cpu_flags() -> frozenset[str]:
    """Return the instruction-set flags of the CPU where the system tells them (Linux), else nothing."""
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return frozenset()
    for line in path.read_text().splitlines():
        if line.startswith(("flags", "Features")):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


def with_float64(device: torch.device) -> torch.device:
    """Return a device itself, or the CPU in place of an Apple GPU, which has no float64."""
    import torch

    return torch.device("cpu") if device.type == "mps" else device


def reuse_memory() -> None:
    """Let glibc keep freed blocks of any size for the next allocation (measured 15 % of a full fine-tuning step).

    By default it returns those above 32 MiB at once, and every step faults the same pages in again. The meter gives
    free memory back between stages.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):  # not in musl
            libc.mallopt(_M_MMAP_MAX, 0)
            libc.mallopt(_M_TRIM_THRESHOLD, -1)


def set_threads() -> int:
    """Use OMP_NUM_THREADS if it is set, else the cores this process may run on; return the number of threads."""
    import torch

    if "OMP_NUM_THREADS" in os.environ:
        return torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(cores)
    return cores
