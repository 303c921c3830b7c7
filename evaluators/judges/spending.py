"""What API calls cost: an estimate before, the server's count after, and a cap that no call may break."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

_CHARACTERS_A_TOKEN = 4.0  # of English text, roughly; what a server counts replaces it
_AT_LEAST = 2.0  # so few characters a token in the worst case that the cap reckons with


@dataclass(frozen=True)
class Prices:
    """US dollars a million tokens; 0 and 0: not stated."""

    prompt: float = 0.0
    completion: float = 0.0

    def cost(self, prompt_tokens: float, completion_tokens: float) -> float:
        """Return dollars."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6


def tokens_of(text: str) -> int:
    """Return about how many tokens a text has."""
    return round(len(text) / _CHARACTERS_A_TOKEN) + 1


def estimated(texts: Sequence[str], max_tokens: int, prices: Prices) -> tuple[int, float]:
    """Return the tokens that questions have, and the dollars at most for them and replies of full length."""
    prompt = sum(map(tokens_of, texts))
    return prompt, prices.cost(prompt, max_tokens * len(texts))


class Purse:
    """Dollars of one run; several threads spend from it, and together never more than the cap.

    Args:
        prices: US dollars a million tokens.
        cap: Dollars; None: no cap.
        tries: Requests of one call at most. A server may bill each: it goes on when who asked no longer waits.
    """

    def __init__(self, prices: Prices, cap: float | None, tries: int) -> None:
        self._prices, self._cap, self._tries, self._lock = prices, cap, tries, threading.Lock()
        self._reserved = self.spent = 0.0

    def reserve(self, text: str, max_tokens: int) -> float | None:
        """Set aside the most that a call can cost by all its tries; None if that might break the cap."""
        most = self._prices.cost(len(text) / _AT_LEAST + 1, max_tokens) * self._tries
        with self._lock:
            if self._cap is not None and self.spent + self._reserved + most > self._cap:
                return None
            self._reserved += most
        return most

    def settle(self, reserved: float, prompt_tokens: int, completion_tokens: int, lost: int) -> None:
        """Replace what was set aside by what the reply cost, and the most that the tries lost before it may have."""
        with self._lock:
            self._reserved -= reserved
            self.spent += self._prices.cost(prompt_tokens, completion_tokens) + reserved / self._tries * lost
