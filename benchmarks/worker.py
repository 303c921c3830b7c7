"""The program of a worker: reads a plan and then tasks from its input, works in the run folder, and replies.

``python -m alignarena.benchmarks.worker``, started by :class:`alignarena.benchmarks.worker_process.WorkerProcess`. The
plan is ``{folder, methods, seeds, method_files, notes_provenance}``, a task ``{verb, seed, method, threads}``, a reply
``{peak_memory_mib}`` with ``done`` for a cell, or ``error`` and ``exit_status`` for what ends the whole run.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from alignarena.benchmarks.worker_process import GRACE
from alignarena.core.errors import AlignArenaError
from alignarena.core.imports import import_once

if TYPE_CHECKING:
    from alignarena.benchmarks.sweep import Sweep

Messages = queue.SimpleQueue[dict[str, Any]]


def main() -> int:
    """Work until the input ends: the process that started this one closes it, or is dead."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a method prints must not come between the replies
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored
    messages = Messages()
    try:
        threading.Thread(target=_read, args=(messages,), daemon=True).start()
        _work(messages, replies)
    except KeyboardInterrupt:
        return 0


def _read(messages: Messages) -> None:
    # Unbuffered: a thread that waits inside a buffered reader makes the interpreter abort when it ends.
    with open(0, "rb", buffering=0, closefd=False) as lines:
        for line in lines:
            messages.put(json.loads(line))
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    time.sleep(GRACE)
    os._exit(130)  # some library holds the interrupt back; what is on disk survives this as any kill


def _work(messages: Messages, replies: TextIO) -> NoReturn:
    import_once("alignarena.benchmarks.sweep")
    import torch

    from alignarena.harness.meter import lifetime_peak_mib

    plan, sweep = messages.get(), None
    while True:
        task = messages.get()
        torch.set_num_threads(task["threads"])
        try:
            sweep = sweep or _sweep(plan)
            reply = _done(sweep, task)
        except AlignArenaError as error:
            reply = {"error": str(error), "exit_status": error.exit_status}
        print(json.dumps({**reply, "peak_memory_mib": lifetime_peak_mib()}), file=replies, flush=True)


def _sweep(plan: Mapping[str, Any]) -> Sweep:
    from alignarena.benchmarks.sweep import Sweep, planned
    from alignarena.results.store import RunFolder

    folder = RunFolder.open(plan["folder"])
    # From the folder, as other plans may be read from files that were edited since the run began.
    suite = planned(
        str(folder.path / "suite.resolved.yaml"), plan["methods"], plan["seeds"], method_files=plan["method_files"]
    )
    return Sweep(suite, folder, plan["method_files"], notes_provenance=plan["notes_provenance"])


def _done(sweep: Sweep, task: Mapping[str, Any]) -> dict[str, Any]:
    if task["verb"] == "cell":
        return {"done": sweep.attempt(task["method"], task["seed"])}
    verbs = {"share": sweep.share, "base": sweep.answer_with_base, "reward": sweep.share_reward_model,
             "check": sweep.check, "finish": sweep.finish}  # fmt: skip
    verbs[task["verb"]](task["seed"])
    return {}


if __name__ == "__main__":
    sys.exit(main())
