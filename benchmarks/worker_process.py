"""A worker as the process sees it that started it: tasks go in and replies come out, one JSON object a line."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

GRACE = 5.0  # seconds a worker has to clean up once its input ends; then it ends itself


class WorkerDied(Exception):
    """The process ended without a reply; says how."""


class WorkerProcess:
    """Starts ``python -m alignarena.benchmarks.worker`` when there is something to do, and again if it died.

    A new program rather than multiprocessing: that would import the user's script once more, and pickle.

    Args:
        plan: What :func:`alignarena.benchmarks.worker.main` reads first.
        environment: The whole environment of the process.
        said: Called with every line that the worker writes for people.
    """

    def __init__(self, plan: Mapping[str, Any], environment: Mapping[str, str], said: Callable[[str], None]) -> None:
        self._plan, self._environment, self._said = dict(plan), dict(environment), said
        self._process: subprocess.Popen[str] | None = None
        self.peak_memory_mib = 0.0  # of all processes so far

    @property
    def alive(self) -> bool:
        """Whether there is a process to take a task."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the process, unless there is one."""
        if self.alive:
            return
        # The arguments are for people who list processes, and for the command that provenance.json records.
        command = [sys.executable, "-P", "-m", "alignarena.benchmarks.worker", *sys.argv[1:]]
        pipe = subprocess.PIPE
        self._process = process = subprocess.Popen(
            command, env=self._environment, stdin=pipe, stdout=pipe, stderr=pipe, encoding="utf-8", errors="replace",
            start_new_session=True,  # Ctrl-C reaches the process that started it, which ends it by closing its input
        )  # fmt: skip
        threading.Thread(target=self._listen, args=(process,), daemon=True).start()
        self._send(process, self._plan)
        self._plan["notes_provenance"] = False

    def do(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """Hand over a task and wait for the reply.

        Raises:
            WorkerDied: There is none.
        """
        process = self._process
        assert process is not None and process.stdout is not None, "start the worker first"
        self._send(process, task)
        line = process.stdout.readline()
        if not line.endswith("\n"):
            raise WorkerDied(_how(process.wait()))
        reply: dict[str, Any] = json.loads(line)
        self.peak_memory_mib = max(self.peak_memory_mib, float(reply["peak_memory_mib"]))
        return reply

    def close(self) -> None:
        """Tell the worker to end, whatever it is doing."""
        if self._process is not None and self._process.stdin is not None:
            try:
                self._process.stdin.close()
            except OSError:  # it is dead
                return

    def wait(self) -> None:
        """Wait until the process has ended; one that does not is killed."""
        if self._process is not None:
            try:
                self._process.wait(2 * GRACE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _send(self, process: subprocess.Popen[str], message: Mapping[str, Any]) -> None:
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(message) + "\n")
            process.stdin.flush()
        except OSError:  # it is dead; whoever waits for its reply will see that
            return

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            self._said(line.rstrip("\n"))


def _how(status: int) -> str:
    if status >= 0:
        return f"its worker process ended with status {status}"
    name = signal.Signals(-status).name
    memory = "; out of memory? fewer --jobs need less" if name == "SIGKILL" else ""
    return f"its worker process was ended by {name}{memory}"
