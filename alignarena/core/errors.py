"""Errors a user can act on: each says what happened, where, and what to do; a command ends with that one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class AlignArenaError(Exception):
    """A problem that ends a command with one line and an exit status instead of a traceback."""

    exit_status = 1


class BadInput(AlignArenaError):
    """The user's input is wrong: an unknown key, a missing column, an unreadable file (exit status 2)."""

    exit_status = 2


class Unusable(BadInput):
    """Something that every method needs cannot be used, such as the cache: no method's failure."""


class RunFailed(AlignArenaError):
    """A run could not finish; what it had computed is in the cache and the next run goes on from there."""


class BudgetUsedUp(Exception):
    """Raised inside the harness when a verb would exceed the budget; ends rollouts normally, never a failure."""

    def __init__(self, last_policy: Any = None) -> None:
        super().__init__("the budget is used up")
        self.last_policy = last_policy  # the latest that was fitted, where one was


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` for the closest known name, else the list of known names."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(names)}"
