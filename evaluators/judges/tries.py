"""Tries that a server got and never answered: it may go on with them all the same, and bill them."""

from __future__ import annotations

import threading
from typing import Any

_NEVER_SENT = ("ConnectError", "ConnectTimeout", "PoolTimeout")  # by name: their module differs with openai's version


class Lost(threading.local):
    """How many such tries the present call of a thread has had."""

    tries = 0


def counting_client(openai: Any, lost: Lost, **options: Any) -> Any:
    """Return an HTTP client that counts them: the ``openai`` client over it tries again and tells nobody.

    Args:
        openai: The module.
        lost: Where to count.
        options: Of ``openai.DefaultHttpxClient``.
    """

    class Client(openai.DefaultHttpxClient):  # type: ignore[misc]  # untyped; here, since its base may not be installed
        def send(self, *request: Any, **how: Any) -> Any:
            try:
                return super().send(*request, **how)
            except Exception as error:
                lost.tries += type(error).__name__ not in _NEVER_SENT
                raise

    return Client(**options)
