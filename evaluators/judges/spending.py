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
    """Dollars of one run; several threads spend from it, and together never more than the cap."""

    def __init__(self, prices: Prices, cap: float | None) -> None:
        self._prices, self._cap, self._lock = prices, cap, threading.Lock()
        self._reserved = self.spent = 0.0

    def reserve(self, text: str, max_tokens: int) -> float | None:
        """Set aside the most that a call can cost; None if that might break the cap."""
        most = self._prices.cost(len(text) / _AT_LEAST + 1, max_tokens)
        with self._lock:
            if self._cap is not None and self.spent + self._reserved + most > self._cap:
                return None
            self._reserved += most
        return most

    def settle(self, reserved: float, prompt_tokens: int = 0, completion_tokens: int = 0) -> None:
        """Replace what was set aside by what it cost."""
        with self._lock:
            self._reserved -= reserved
            self.spent += self._prices.cost(prompt_tokens, completion_tokens)
