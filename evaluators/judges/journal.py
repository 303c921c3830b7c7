"""Answers of a paid judge, one line each as it comes: a kill loses none, and no question is paid for twice."""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock

from alignarena.core.files import append_jsonl, read_jsonl


@dataclass(frozen=True)
class Entry:
    """What one question, in one order, got."""

    key: str  # digest of the judge, the prompt, the completions and their order
    first: float | None  # that what stands first is better; None: unreadable
    reply: str  # the last one
    replies: int  # how often it was asked until it could be read
    prompt_tokens: int  # of all of them
    completion_tokens: int


class Journal:
    """The entries of one judge in a JSONL file; threads and processes may share it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._entries = {row["key"]: Entry(**row) for row in read_jsonl(path)}

    def get(self, key: str) -> Entry | None:
        """Return what a question got, if it was answered."""
        return self._entries.get(key)

    def add(self, entry: Entry) -> None:
        """Keep an answer: it is on disk when this returns."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock, FileLock(f"{self._path}.lock"):
            append_jsonl(self._path, [asdict(entry)])
            self._entries[entry.key] = entry
