"""Randomness by name: every draw derives from (seed, names), never from the order of calls."""

from __future__ import annotations

import hashlib

import numpy as np


def derive(seed: int, *names: object) -> int:
    """Derive a 64-bit seed from a seed and names, the same on every machine."""
    text = "\x1f".join([str(seed), *(str(name) for name in names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def generator(seed: int, *names: object) -> np.random.Generator:
    """Return a counter-based generator (Philox) of its own for (seed, names)."""
    return np.random.Generator(np.random.Philox(derive(seed, *names)))
