"""`alignarena judge` as a process of its own, which tests talk to over loopback and may kill."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


class JudgingProcess:
    """A running page; it keeps its address over a restart, as its cache is the same."""

    def __init__(self, run: Path, cache: Path, *options: str, name: str = "ann") -> None:
        command = [sys.executable, "-m", "alignarena", "judge", str(run), "--judge", name, "--no-open", *options]
        environment = {**os.environ, "ALIGNARENA_CACHE": str(cache)}
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+/\S+", said)
        assert found is not None, said
        self.url = found[0]

    def ask(self, what: str, body: Any = None) -> tuple[int, dict[str, Any]]:
        """Return the status and the answer to GET, or to POST where there is a body."""
        sent = None if body is None else json.dumps(body).encode()
        status, answer, _ = ask(self.url + what, sent)
        return status, json.loads(answer)

    def kill(self) -> None:
        """End it at once, as the kernel would."""
        self._process.kill()
        self._process.wait()

    def interrupt(self) -> str:
        """End it by Ctrl-C and return what it printed since."""
        self._process.send_signal(signal.SIGINT)
        printed, _ = self._process.communicate(timeout=60)
        assert self._process.returncode == 0, printed
        return printed


def ask(
    url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None, method: str | None = None
) -> tuple[int, bytes, Mapping[str, str]]:
    """Return the status, body and headers of one request."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=20)
    connection.request(method or ("GET" if body is None else "POST"), parts.path, body, dict(headers or {}))
    reply = connection.getresponse()
    found = reply.status, reply.read(), dict(reply.getheaders())
    connection.close()
    return found
