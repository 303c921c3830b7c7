"""The server behind `alignarena judge`: this machine alone reaches it, and only who knows the address is answered."""

from __future__ import annotations

import hmac
import json
import re
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from alignarena.benchmarks.sitting import Sitting
from alignarena.core.digest import digest
from alignarena.core.errors import BadInput, RunFailed
from alignarena.core.files import dump_json, read_json, write_json
from alignarena.harness.cache import cache_folder
from alignarena.reports.judge_page import JudgePage
from alignarena.results.store import RunFolder

_HERE = "127.0.0.1"
_HOST = re.compile(r"(?:127\.0\.0\.1|localhost)(?::\d+)?")  # any other name would be another site's, rebound to us
_MOST_BYTES = 10_000  # of a request; a verdict has about 80


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
