"""The server behind `alignarena judge`: this machine alone reaches it, and only who knows the address is answered."""

from __future__ import annotations

import getpass
import hmac
import json
import re
import secrets
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from alignarena.benchmarks.blind import Sitting, draw
from alignarena.core.digest import digest
from alignarena.core.errors import BadInput, RunFailed
from alignarena.core.files import dump_json, read_json, write_json
from alignarena.harness.cache import cache_folder
from alignarena.reports.judge_page import JudgePage, judge_page
from alignarena.results.frame import STUDY, run_folders
from alignarena.results.people import Person
from alignarena.results.store import RunFolder

_HERE = "127.0.0.1"
_HOST = re.compile(r"(?:127\.0\.0\.1|localhost)(?::\d+)?")  # any other name would be another site's, rebound to us
_MOST_BYTES = 10_000  # of a request; a verdict has about 80
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


class PageServer(ThreadingHTTPServer):
    """Serves one person's page and takes the verdicts.

    Args:
        sitting: The person's work.
        page: The page.
        token: What an address must begin with.
        port: Where to listen on 127.0.0.1; 0 is any free one.

    Raises:
        OSError: The port is in use.
    """

    daemon_threads = True

    def __init__(self, sitting: Sitting, page: JudgePage, token: str, port: int = 0) -> None:
        self.sitting, self.page, self.token = sitting, page, token
        super().__init__((_HERE, port), _Handler)

    @classmethod
    def at_address(cls, folder: RunFolder, sitting: Sitting, page: JudgePage, name: str, port: int) -> PageServer:
        """Make a server at the address it had last time, so that an open tab goes on; else at a new one."""
        noted = cache_folder() / "people" / f"{digest(str(folder.path.resolve()), name)}.json"
        noted.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # the address is a secret
        last = read_json(noted, {})
        if last and port in (0, last["port"]):
            with suppress(OSError):  # someone else has the port, and may be sent the token: it is worth nothing now
                return cls(sitting, page, last["token"], last["port"])
        try:
            server = cls(sitting, page, secrets.token_urlsafe(24), port)
        except (OSError, OverflowError) as error:
            raise BadInput(f"port {port}: {error}; choose another, or leave --port out") from None
        write_json(noted, {"port": server.server_port, "token": server.token})
        return server

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{_HERE}:{self.server_port}/{self.token}/"

    @contextmanager
    def running(self) -> Iterator[str]:
        """Serve until the block ends; its value is the address."""
        thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield self.url
        finally:
            self.shutdown()
            self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    timeout = 30  # seconds for a request that does not come to its end

    def do_GET(self) -> None:
        """Answer the page or the state."""
        self._answer({"": self._send_page, "state": lambda: self._send_state(self.server.sitting.state())})

    def do_POST(self) -> None:
        """Take a verdict."""
        self._answer({"verdict": self._take})

    def _answer(self, known: dict[str, Callable[[], None]]) -> None:
        _, token, what = [*self.path.split("/", 2), ""][:3]
        if not _HOST.fullmatch(self.headers.get("Host", "")):
            self._refuse(403, "another host")
        elif not hmac.compare_digest(token.encode(), self.server.token.encode()):
            self._refuse(403, "not the address that the terminal shows")
        elif what not in known:
            self._refuse(404, "no such page")
        else:
            known[what]()

    def _take(self) -> None:
        try:
            body = self._body()
            self._send_state(self.server.sitting.judge(str(body["pair"]), body["verdict"]))
        except (ValueError, KeyError, TypeError, BadInput) as error:
            self._refuse(400, f"expected {{pair, verdict}}: {error}")
        except RunFailed as error:
            print(f"alignarena: {error}", flush=True)
            self._refuse(507, str(error))

    def _body(self) -> Any:
        size = int(self.headers.get("Content-Length", ""))
        if not 0 <= size <= _MOST_BYTES:
            raise ValueError(f"{size} bytes")
        return json.loads(self.rfile.read(size))

    def _send_page(self) -> None:
        self._send(200, "text/html; charset=utf-8", self.server.page.html)

    def _send_state(self, state: dict[str, Any]) -> None:
        self._send(200, "application/json", dump_json(state))

    def _refuse(self, status: int, why: str) -> None:
        self._send(status, "application/json", dump_json({"error": why}))

    def _send(self, status: int, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Content-Security-Policy": self.server.page.policy,
            "Cache-Control": "no-store",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }
        for name, value in headers.items():
            self.send_header(name, value)
        with suppress(ConnectionError):  # who asked is gone
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing: the terminal is for the address, which is a secret elsewhere."""
