"""A person judges a run, from the command to the last verdict."""

from __future__ import annotations

import getpass
import threading
import time
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from alignarena.benchmarks.blind import draw
from alignarena.benchmarks.sitting import Sitting
from alignarena.core.errors import BadInput
from alignarena.judge_server import PageServer
from alignarena.reports.judge_page import judge_page
from alignarena.results.folders import STUDY, run_folders
from alignarena.results.people import Person
from alignarena.results.store import RunFolder

_GRACE = 10.0  # seconds after the last pair, in which its verdict can be taken back


def serve(
    run_dir: str | Path, name: str | None = None, methods: Sequence[str] | None = None, port: int = 0, show: bool = True
) -> None:  # fmt: skip
    """Let a person judge a run on a local page, until all pairs are judged or Ctrl-C.

    Args:
        run_dir: A run folder.
        name: Whose verdicts they are; by default the login name's.
        methods: Only these, each against SFT; all by default.
        port: Where to listen; 0 is any free one, the same as last time if it is free.
        show: Open the page in a browser.

    Raises:
        BadInput: Nothing to judge, no such method, a bad name, a port in use, or the name judges elsewhere already.
    """
    folder = _run(run_dir)
    person = Person(folder.path, name or _login())
    sitting = Sitting(draw(folder, methods), person)
    with _alone(person):
        server = PageServer.at_address(folder, sitting, judge_page(folder.name, person.name), person.name, port)
        with server.running() as url:
            print(f"{person.name} judges {folder.name} at {url}")
            print("Ctrl-C ends it and counts the verdicts.", flush=True)
            if show:
                threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
            _wait(sitting)


def _run(run_dir: str | Path) -> RunFolder:
    folders = run_folders(run_dir)
    if (Path(run_dir) / STUDY).is_file():
        known = ", ".join(str(folder.path) for folder in folders)
        raise BadInput(f"{run_dir} is a study; judge one of its runs: {known}")
    return folders[0]


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run as a number
        raise BadInput("this machine does not know your name; write --judge NAME") from None


def _wait(sitting: Sitting) -> None:
    try:
        while not (sitting.complete and sitting.idle > _GRACE):
            time.sleep(0.2)
    except KeyboardInterrupt:
        print()


@contextmanager
def _alone(person: Person) -> Iterator[None]:
    """Keep a second server from judging in the same name: each would not know of the other's verdicts."""
    person.path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(person.path.with_name(f".{person.name}.lock"), timeout=0):
            yield
    except Timeout:
        run = person.path.parents[1]
        raise BadInput(f"{person.name} judges {run} in another terminal; end that, or write --judge NAME") from None
