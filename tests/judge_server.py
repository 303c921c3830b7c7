"""A small OpenAI-compatible server on loopback that can be told to misbehave."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, Any] | str  # a status and a body, or the text of a reply


def longer_one(question: str) -> str:
    """Prefer the longer response, as a model that reads the question would say it."""
    first, _, second = question.partition("Response 1: ")[2].partition("\n\nResponse 2: ")
    return "1" if len(first) > len(second.split("\n\nAnswer with")[0]) else "2"


@dataclass
class JudgeServer:
    """What it answers to the n-th request, from 0, and what it was asked."""

    answer: Callable[[int, list[dict[str, str]]], Reply] = lambda number, said: longer_one(said[0]["content"])
    asked: list[list[dict[str, str]]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    port: int = 0
    usage: bool = True
    delay: float = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @contextmanager
    def running(self) -> Iterator[JudgeServer]:
        """Serve until the block ends; the same port again if it ran before."""
        server = ThreadingHTTPServer(("127.0.0.1", self.port), self._handler())
        self.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        told = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                typed = self.path.endswith("/systemone")
                said = [{"role": "user", "content": asked["state"]}] if typed else asked["messages"]
                told.asked.append(said)
                told.keys.append(self.headers["Authorization"])
                time.sleep(told.delay)
                reply = told.answer(len(told.asked) - 1, said)
                made = decision if typed else told.body
                status, body = (200, made(reply)) if isinstance(reply, str) else reply
                text = (body if isinstance(body, str) else json.dumps(body)).encode()
                try:
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(text)))
                    self.send_header("retry-after-ms", "1")  # so that tests wait for no backoff
                    self.end_headers()
                    self.wfile.write(text)
                except OSError:
                    pass  # who asked has given up

            def log_message(self, *_: Any) -> None:
                pass

        return Handler

    def body(self, text: str) -> dict[str, Any]:
        """Return a completion as such an endpoint writes it."""
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        usage = {"prompt_tokens": 100, "completion_tokens": 1, "total_tokens": 101}
        head = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
        return {**head, "usage": usage} if self.usage else head


def decision(first: str) -> dict[str, Any]:
    """Return a typed decision, given the probability of 1."""
    chances = {"1": float(first), "2": 1 - float(first)}
    return {"model": "m", "answers": {"better": {"probabilities": chances}}, "usage": {"input_tokens": 50}}


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
