"""One call of an OpenAI-compatible endpoint: what it replied, or why it did not. The key comes from the environment."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from alignarena.core.errors import BadInput, RunFailed
from alignarena.evaluators.judges.pace import Pace
from alignarena.evaluators.judges.tries import Lost, counting_client

_MISSING_KEY = "none"  # local servers take any
_SHORTEST_KEY = 8  # a shorter one is a placeholder, and taking it out of texts would only garble them
_LONGEST = 200  # characters of a server's message that a reason repeats
_RENAMED = "max_completion_tokens"  # what OpenAI's reasoning models call max_tokens


@dataclass(frozen=True)
class Reply:
    """What came back, and the tokens that the server counted; None where it counts none."""

    text: str
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    first: float | None = None  # that the first is better, where the server gives probabilities
    cut: bool = False  # it ended at the most tokens


class NoReply(Exception):
    """No reply came after all retries; ``dead`` if the server itself seems to be gone."""

    def __init__(self, reason: str, dead: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.dead = reason, dead


class Endpoint:
    """The ``openai`` client, which retries with backoff what may pass (429, as long as the server says; 5xx; timeouts).

    Args:
        base_url: Where ``/chat/completions`` is.
        model: The model's name there.
        timeout: Seconds that one try may take.
        retries: Further tries.
        key_variable: The environment variable that holds the key.
        per_minute: Requests at most, further tries included; None: no limit.
    """

    def __init__(
        self, base_url: str, model: str, timeout: float, retries: int, key_variable: str, per_minute: float | None
    ) -> None:  # fmt: skip
        try:
            import openai
        except ImportError:
            raise BadInput("an API judge needs the openai client; pip install 'alignarena[judges]'") from None
        check_address(base_url)
        self._openai: Any = openai
        self._where, self._model, self._variable = f"{model} at {base_url}", model, key_variable
        self._key = os.environ.get(key_variable) or _MISSING_KEY
        self._limit, self._lost = "max_tokens", Lost()
        self._reasons = dict[int, str]()  # by status
        hooks = {"request": [Pace(per_minute).wait] if per_minute is not None else []}
        self._client = openai.OpenAI(
            base_url=base_url, api_key=self._key, timeout=timeout, max_retries=retries,
            http_client=counting_client(openai, self._lost, base_url=base_url, timeout=timeout, event_hooks=hooks),
        )  # fmt: skip

    @property
    def lost(self) -> int:
        """Tries of this thread's last call that the server got and never answered: it may bill them."""
        return self._lost.tries

    def ask(self, messages: Sequence[Mapping[str, str]], max_tokens: int) -> Reply:
        """Return the reply to a conversation.

        Raises:
            NoReply: None came; the question may be asked again later.
            RunFailed: None can come: the key, the model or the address is wrong.
        """
        said: Any = list(messages)
        return self._called(lambda: self._completion(said, max_tokens), self._read_text)

    def decide(self, question: str) -> Reply:
        """Return how a server of typed decisions (``/systemone``) decides between 1 and 2; errors as :meth:`ask`."""
        sides = {"1": "Response 1 is better", "2": "Response 2 is better"}
        asked = {"better": {"type": "choice", "instructions": "Which response is better?", "criteria": sides}}
        body: Any = {"model": self._model, "state": question, "questions": asked}
        return self._called(lambda: self._client.post("/systemone", cast_to=object, body=body), _read_decision)

    def _completion(self, said: Any, most: int) -> Any:
        """Have a conversation continued; a model that wants the limit by its other name gets it so from then on."""

        def create(limit: str) -> Any:
            ways: Any = {"temperature": 0.0, limit: most}
            return self._client.chat.completions.create(model=self._model, messages=said, **ways)

        limit = self._limit
        try:
            return create(limit)
        except self._openai.BadRequestError as error:
            if limit == _RENAMED or _RENAMED not in error.message:  # who does not know it might reply without end
                raise
        found = create(_RENAMED)
        self._limit = _RENAMED
        return found

    def _called(self, call: Callable[[], Any], read: Callable[[Any], Reply]) -> Reply:
        openai = self._openai
        self._lost.tries = 0
        try:
            return read(call())
        except openai.APITimeoutError:
            raise NoReply("timed out", dead=True) from None
        except openai.APIConnectionError:
            raise NoReply("no connection", dead=True) from None
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            said_why = f"{error.status_code}, {self.without_key(error.message)}"
            hint = f"check the address, the model's name, and the key in ${self._variable}"
            raise RunFailed(f"judge {self._where}: {said_why}; {hint}") from None
        except openai.APIStatusError as error:
            # too many requests, even after waiting as told, may be a quota that is used up
            dead = error.status_code >= 500 or error.status_code == 429
            raise NoReply(self._reason(error), dead) from None
        except (openai.OpenAIError, ValueError, AttributeError, LookupError, TypeError):
            raise NoReply("not a reply of such an endpoint") from None

    def _reason(self, error: Any) -> str:
        """Return the status and, of 4xx, what the server first said with it: later messages may differ by a number."""
        told = self.without_key(error.message).partition(" - ")[2] if error.status_code < 500 else ""
        short = " ".join(told.split())[:_LONGEST]
        return self._reasons.setdefault(error.status_code, f"status {error.status_code}{short and f': {short}'}")

    def without_key(self, text: str) -> str:
        """Return a text with the key taken out: a server may repeat it."""
        return text.replace(self._key, "[key]") if len(self._key) >= _SHORTEST_KEY else text

    def _read_text(self, found: Any) -> Reply:
        choice = found.choices[0]
        usage = getattr(found, "usage", None)
        sent, written = (getattr(usage, name, None) for name in ("prompt_tokens", "completion_tokens"))
        text = self.without_key(choice.message.content or "")
        return Reply(text, sent, written, cut=choice.finish_reason == "length")


def _read_decision(found: Any) -> Reply:
    chances = found["answers"]["better"]["probabilities"]
    first = float(chances["1"]) / (float(chances["1"]) + float(chances["2"]))
    return Reply(f"{first:.6f}", found["usage"]["input_tokens"], 0, first)


def check_address(base_url: str) -> None:
    """Check that an address can be shown: it is part of a judge's name.

    Raises:
        BadInput: It is no http address, or holds a password or a query.
    """
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadInput("base_url: expected an address such as http://127.0.0.1:8000/v1")
    if "@" in parts.netloc or parts.query:
        raise BadInput("base_url: no key, password or query in it; the key is read from the environment alone")
