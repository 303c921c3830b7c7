"""A limit on requests a minute, which servers set and answer with 429 to who breaks it."""

from __future__ import annotations

import threading
import time


class Pace:
    """Spaces the requests of all threads evenly: in no minute are there more than so many, and never a burst.

    Args:
        per_minute: Requests, above 0.
    """

    def __init__(self, per_minute: float) -> None:
        self._gap, self._next, self._lock = 60.0 / per_minute, 0.0, threading.Lock()

    def wait(self, *_: object) -> None:
        """Return when the next request may be sent."""
        with self._lock:
            now = time.monotonic()
            mine = max(now, self._next)
            self._next = mine + self._gap
        time.sleep(mine - now)
