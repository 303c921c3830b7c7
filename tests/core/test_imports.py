"""Imports uncollected: in a process of its own, as it tells the collector what to leave alone."""

import gc
import subprocess
import sys

from alignarena.core.imports import import_once

PROGRAM = """
import gc
from alignarena.core.imports import import_once

seen = []
gc.callbacks.append(lambda phase, info: seen.append(phase))
import_once("pandas")
assert "pandas" in __import__("sys").modules
assert not seen, "collected while importing"
frozen = gc.get_freeze_count()
assert gc.isenabled() and frozen > 10_000
import_once("pandas")
assert gc.get_freeze_count() == frozen, "frozen a second time"
try:
    import_once("no_such_module")
except ModuleNotFoundError:
    assert gc.isenabled() and gc.get_freeze_count() == frozen
"""


def test_nothing_is_collected_while_modules_are_imported_nor_what_they_made_later() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_is_there_leaves_the_collector_alone() -> None:
    before = gc.get_freeze_count()
    import_once("alignarena.core.imports", "gc")
    assert gc.isenabled() and gc.get_freeze_count() == before
