"""Imports of the large libraries, kept from Python's collector of cycles.

It walks over every object again and again while torch and transformers are imported, which was a fifth of the time,
and over all that they made whenever a fit has made enough rows, a fourteenth of a fit (docs/performance.md).
"""

from __future__ import annotations

import gc
import importlib
import sys


def import_once(*modules: str) -> None:
    """Import modules uncollected and leave every object there is by then out of later collections.

    For a program of its own, at its start: what is garbage by then is never freed. Modules that are there already are
    left as they are, and so is the collector.
    """
    missing = [name for name in modules if name not in sys.modules]
    if not missing or not gc.isenabled():
        return
    gc.disable()
    try:
        for name in missing:
            importlib.import_module(name)
        gc.freeze()
    finally:
        gc.enable()
