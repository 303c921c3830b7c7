"""Files that survive a kill: written whole or not at all, and read back whatever a killed process left."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from alignarena.core.errors import BadInput, RunFailed

# Where a user named a place that cannot hold a folder: no right to it, or a file lies there.
UNWRITABLE = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST})


def atomic_write(path: str | Path, data: bytes | str) -> None:
    """Write a file whole or not at all: a temporary file beside it, fsync, rename. Missing folders are made.

    Raises:
        RunFailed: The disk is full or the folder cannot be written; the old file is as it was.
    """
    path = Path(path)
    content = data.encode("utf-8") if isinstance(data, str) else data
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Opened with the usual mode, so that the umask decides who may read it (mkstemp would make it private).
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def dump_json(value: Any, indent: int | None = None) -> str:
    """Return strict JSON of plain values: a number that is not finite becomes ``null``, a lone surrogate its escape."""
    text = json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, indent=indent)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write one JSON value atomically."""
    atomic_write(path, dump_json(value, indent=2) + "\n")


def read_json(path: str | Path, default: Any = None) -> Any:
    """Read one JSON value; the default where the file is absent.

    Raises:
        BadInput: The file is not JSON, or its folder is a file.
    """
    content = _bytes(path)
    if content is None:
        return default
    try:
        return json.loads(content)
    except ValueError as error:
        raise BadInput(f"{path} is not JSON ({error}); restore it, or delete it and run again") from None


def write_jsonl(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line, atomically."""
    atomic_write(path, _lines(rows))


def append_jsonl(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add lines at the end, after cutting off a line that a killed process left half written.

    Raises:
        RunFailed: The disk is full or the folder cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a+b") as file:
            _cut_half_line(file)
            file.write(_lines(rows).encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise _cannot_write(path, error) from error


def read_jsonl(path: str | Path) -> list[dict[str, Any]]:
    """Read one JSON object a line: nothing where the file is absent, and not the half line of a killed writer.

    Raises:
        BadInput: A line before the last is broken, or the folder is a file.
    """
    content = _bytes(path)
    if content is None:
        return []
    # Split at newlines only: completions may hold U+2028 and other characters that str.splitlines breaks at.
    lines = content.split(b"\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            if number == len(lines):  # no newline after it: its writer was killed
                break
            raise BadInput(f"{path}, line {number}: not JSON ({error}); delete that line or run again") from None
        if not isinstance(row, dict):
            raise BadInput(f"{path}, line {number}: expected an object, got {type(row).__name__}; run again")
        rows.append(row)
    return rows


def _cut_half_line(file: BinaryIO) -> None:
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        return
    file.seek(size - 1)
    if file.read(1) != b"\n":
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)


def _lines(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(dump_json(row) + "\n" for row in rows)


def _bytes(path: str | Path) -> bytes | None:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        raise BadInput(f"{Path(path).parent} is a file and no folder; choose another folder") from None


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _cannot_write(path: Path, error: OSError) -> RunFailed:
    return RunFailed(
        f"cannot write {path}: {error.strerror or error}; free some space or choose another folder, then run the same "
        "command again (what was computed is kept)"
    )
