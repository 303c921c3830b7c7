"""The memo on disk: one folder a digest, complete or absent, shared by processes through a lock a digest."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from alignarena.core.errors import Unusable
from alignarena.core.files import UNWRITABLE


def cache_folder() -> Path:
    """Return ``$ALIGNARENA_CACHE``, by default ``~/.cache/alignarena``."""
    return Path(os.environ.get("ALIGNARENA_CACHE") or Path.home() / ".cache" / "alignarena")


@contextmanager
def locked(path: Path, seconds: float = -1) -> Iterator[None]:
    """Let one process at a time make something of the cache; the system frees the lock when a process dies.

    Args:
        path: What is made; the lock lies beside it.
        seconds: How long to wait while another process holds it; -1: until it is free.

    Raises:
        Unusable: The cache cannot be written.
        TimeoutError: It was not free in time.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(path.with_name(f"{path.name}.lock")).acquire(timeout=seconds)
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        raise Unusable(
            f"cannot write to the cache {path.parent}: {error.strerror}; set ALIGNARENA_CACHE to a folder of your own"
        ) from error
    with held:
        yield


class Cache:
    """Finished stages under ``ROOT/DIGEST/``, unfinished ones under ``ROOT/DIGEST.partial/``.

    A stage becomes visible by one rename, so a kill at any moment leaves it complete or absent.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or cache_folder()

    def path(self, key: str) -> Path:
        """Return the folder of a finished stage, whether it exists or not."""
        return self.root / key

    def partial(self, key: str) -> Path:
        """Return the folder of a stage's checkpoints; it lives until the stage is finished."""
        return self.root / f"{key}.partial"

    def record(self, key: str) -> dict[str, Any] | None:
        """Return the record of a finished stage, or ``None``: a folder without a whole one is no stage."""
        try:
            found: dict[str, Any] = json.loads((self.path(key) / "record.json").read_text())
        except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
            return None
        return found

    def lock(self, key: str, seconds: float = -1) -> AbstractContextManager[None]:
        """Let one process at a time compute a stage, as :func:`locked` does."""
        return locked(self.path(key), seconds)

    def put(self, key: str, record: dict[str, Any], write: Callable[[Path], None]) -> None:
        """Write a finished stage: ``write`` fills a folder, then one rename publishes it."""
        self.root.mkdir(parents=True, exist_ok=True)
        half_made = Path(tempfile.mkdtemp(dir=self.root, prefix=f".{key}."))
        try:
            write(half_made)
            (half_made / "record.json").write_text(json.dumps(record, indent=1, sort_keys=True))
            if self.record(key) is None:  # what someone's interrupted clean-up left
                shutil.rmtree(self.path(key), ignore_errors=True)
            publish(half_made, self.path(key))
        finally:
            shutil.rmtree(half_made, ignore_errors=True)
        shutil.rmtree(self.partial(key), ignore_errors=True)


def publish(half_made: Path, target: Path) -> None:
    """Flush every file of a folder to disk and rename it into place; if the target exists, it is kept."""
    for file in half_made.rglob("*"):
        if file.is_file():
            with open(file, "rb") as handle:
                os.fsync(handle.fileno())
    try:
        os.rename(half_made, target)
    except OSError:
        if not target.is_dir():  # another process may have published the same content first
            raise
