"""Any OpenAI-compatible endpoint as judge: vLLM, Ollama, llama.cpp, ``transformers serve``, OpenAI.

Every answer is written down as it comes, by the digest of judge, prompt, completions and order. So a kill, a dead
server or a spending cap loses nothing, and the next run asks only what is missing.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from alignarena.core.digest import digest
from alignarena.core.errors import BadInput, RunFailed
from alignarena.core.lineage import model_root
from alignarena.evaluators.judges import reading
from alignarena.evaluators.judges.endpoint import Endpoint, NoReply, Reply, check_address
from alignarena.evaluators.judges.journal import Entry, Journal
from alignarena.evaluators.judges.pairs import Answer, Pair, in_both_orders
from alignarena.evaluators.judges.spending import Prices, Purse, estimated, tokens_of
from alignarena.evaluators.judges.suspects import asked_safely
from alignarena.harness.cache import cache_folder

_DEAD = 8  # failures in a row after which a server is taken for gone
_CAPPED = "not asked: the spending cap is reached"
_CUT = "cut off before a verdict; raise max_tokens, as by --set max_tokens=2048"


@dataclass(frozen=True)
class ApiJudge:
    """Asks a server in both orders. Its key is no field: it is read from the environment when a call is made."""

    model: str
    base_url: str = "http://127.0.0.1:8000/v1"
    goal: str = ""  # what the better one does; empty: is helpful, honest and harmless
    thinking: bool = False  # reasons before the verdict
    decisions: bool = False  # ask for probabilities at /systemone, as `transformers serve` has it: nothing to read
    max_tokens: int | None = None  # of a reply, thoughts included; None: room for a verdict, if thinking for reasons
    concurrency: int = 4  # calls at a time
    requests_per_minute: float | None = None  # at most, further tries included; None: no limit
    timeout: float = 60.0  # seconds of one try
    retries: int = 4  # further tries, each later than the last, where it may pass: 429, 5xx, timeouts
    rereads: int = 2  # further questions where a reply names no side
    prompt_price: float = 0.0  # US dollars a million tokens
    completion_price: float = 0.0
    max_cost: float | None = None  # US dollars a run; the rest stays unasked
    key_variable: str = "OPENAI_API_KEY"
    role: str = "verdict"

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            BadInput: An address that cannot be shown, a count out of range, or a cap without prices.
        """
        check_address(self.base_url)
        if self.thinking and self.decisions:
            raise BadInput("thinking and decisions exclude each other: a typed decision has no reasons")
        if self.concurrency < 1 or self.retries < 0 or self.rereads < 0 or not self.timeout > 0:
            raise BadInput("concurrency must be 1 or more, retries and rereads 0 or more, timeout above 0")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise BadInput("max_tokens: must be 1 or more; leave it out for the length of a verdict")
        if self.requests_per_minute is not None and not self.requests_per_minute > 0:
            raise BadInput("requests_per_minute: must be above 0; leave it out for no limit")
        if self.max_cost is not None and not (self.max_cost >= 0 and self.prompt_price + self.completion_price > 0):
            raise BadInput("max_cost: a cap needs prompt_price and completion_price, in US dollars a million tokens")

    @property
    def name(self) -> str:
        """The model's own name, and how it is asked where not as usual; a goal of its own by digits."""
        ways = ["thinking"] * self.thinking + [digest(self.goal)[:6]] * bool(self.goal)
        return "-".join([self.model.rstrip("/").rpartition("/")[2], *ways])

    @property
    def how(self) -> str:
        """Where, whether by typed decisions, and for what goal if it has one of its own."""
        goal = f", for the goal {self.goal!r}" * bool(self.goal)
        return f"at {self.base_url}" + ", by typed decisions" * self.decisions + goal

    @property
    def lineage(self) -> frozenset[str]:
        """The model."""
        return frozenset({model_root(self.model)})

    @property
    def identity(self) -> str:
        """What its answers are kept under: all that changes them, and nothing that does not, such as the key."""
        fields = (self.model, self.base_url, self.goal, self.thinking, self.decisions, self.rereads)
        limit = [] if self.max_tokens is None else [self.max_tokens]
        return digest("api judge", reading.REVISION, *fields, *limit)

    def answers(self, pairs: Sequence[Pair]) -> list[Answer]:
        """Ask what no rule decides and no earlier run was told.

        Raises:
            RunFailed: The server refuses the key or knows no such model.
        """
        return asked_safely(pairs, self._ask)

    def _ask(self, pairs: Sequence[Pair]) -> list[Answer]:
        journal = Journal(cache_folder() / "judges" / f"{self.identity}.jsonl")
        ordered = [one for pair in pairs for one in (pair, pair.swapped())]
        unknown = list(dict.fromkeys(one for one in ordered if journal.get(self.key(one)) is None))
        missing = _Round(self, journal).ask(unknown) if unknown else {}
        found = [journal.get(self.key(one)) for one in ordered]
        return [_answer(*both, missing.get(pair) or missing.get(pair.swapped()) or "")
                for both, pair in zip(zip(found[::2], found[1::2], strict=True), pairs, strict=True)]  # fmt: skip

    def key(self, pair: Pair) -> str:
        """Return the digest of the judge, the prompt, and the completions in their order."""
        return digest(self.identity, pair.prompt, pair.a, pair.b)

    @property
    def prices(self) -> Prices:
        """As stated."""
        return Prices(self.prompt_price, self.completion_price)


def _answer(first: Entry | None, swapped: Entry | None, missing: str) -> Answer:
    if first is None or swapped is None:
        return Answer(None, missing=missing or "no answer")
    sides = [one.first for one in (first, swapped)]
    both = [0.5 if side is None else side for side in sides]
    return in_both_orders(both[0], both[1], sides.count(None))


class _Round:
    """The questions of one run: asked side by side, until all are answered, the server is gone or the cap reached."""

    def __init__(self, judge: ApiJudge, journal: Journal) -> None:
        self._judge, self._journal = judge, journal
        self._endpoint = Endpoint(judge.base_url, judge.model, judge.timeout, judge.retries, judge.key_variable,
                                  judge.requests_per_minute)  # fmt: skip
        self._purse = Purse(judge.prices, judge.max_cost, judge.retries + 1)
        self._most = judge.max_tokens or (reading.LONG_REPLY if judge.thinking else reading.SHORT_REPLY)
        self._failures, self._ended, self._lock = 0, "", threading.Lock()

    def ask(self, pairs: Sequence[Pair]) -> dict[Pair, str]:
        """Ask, and return why there is no answer where there is none."""
        self._announce(pairs)
        with ThreadPoolExecutor(self._judge.concurrency) as pool:
            try:
                reasons = list(pool.map(self._one, pairs))
            except BaseException:
                self._ended = self._ended or "not asked: interrupted"
                raise
        found = {pair: reason for pair, reason in zip(pairs, reasons, strict=True) if reason}
        self._report(len(pairs), found)
        return found

    def _one(self, pair: Pair) -> str:
        if self._ended:
            return self._ended
        text = reading.question(pair, self._judge.goal, self._judge.thinking)
        try:
            entry = self._entry(pair, text)
        except NoReply as error:
            self._note_failure(error)
            return error.reason
        except RunFailed:
            self._ended = "not asked: the server refused"
            raise
        if entry is None:
            self._ended = _CAPPED
            return _CAPPED
        with self._lock:
            self._failures = 0
        self._journal.add(entry)
        return ""

    def _entry(self, pair: Pair, text: str) -> Entry | None:
        """Ask until a reply can be read, at most so often; None if the cap forbids it.

        Raises:
            NoReply: None came, or the last had no room for a verdict: kept, it would never be asked for again.
        """
        said = [{"role": "user", "content": text}]
        replies = list[tuple[int, int]]()
        for _ in range(self._judge.rereads + 1):
            found = self._reply(said)
            if found is None:
                return None
            reply, used = found
            replies.append(used)
            side = reply.first
            if side is None:
                side = reading.read(reply.text, self._judge.thinking and len(said) == 1)
            if side is not None:
                break
            said = [*said, {"role": "assistant", "content": reply.text}, {"role": "user", "content": reading.AGAIN}]
        if side is None and reply.cut:
            raise NoReply(_CUT)
        prompt_tokens, completion_tokens = (sum(column) for column in zip(*replies, strict=True))
        return Entry(self._judge.key(pair), side, reply.text, len(replies), prompt_tokens, completion_tokens)

    def _reply(self, said: Sequence[Mapping[str, str]]) -> tuple[Reply, tuple[int, int]] | None:
        """Return the reply to a conversation with the tokens of both; None if the cap forbids it."""
        whole = "\n".join(turn["content"] for turn in said)
        reserved = self._purse.reserve(whole, self._most)
        if reserved is None:
            return None
        used = (0, 0)
        try:
            reply = self._endpoint.decide(whole) if self._judge.decisions else self._endpoint.ask(said, self._most)
            used = _used(whole, reply.text, reply.prompt_tokens, reply.completion_tokens)
        finally:
            self._purse.settle(reserved, *used, self._endpoint.lost)
        return reply, used

    def _note_failure(self, error: NoReply) -> None:
        with self._lock:
            self._failures += error.dead
            if self._failures >= _DEAD:
                self._ended = f"not asked: the server is gone ({error.reason})"

    def _announce(self, pairs: Sequence[Pair]) -> None:
        judge = self._judge
        texts = [reading.question(pair, judge.goal, judge.thinking) for pair in pairs]
        tokens, dollars = estimated(texts, self._most, judge.prices)
        cost = f"about {dollars:.4f} US dollars at most" if dollars else "no price stated"
        cap = f", capped at {judge.max_cost:g}" if judge.max_cost is not None else ""
        slowest = len(pairs) / judge.requests_per_minute if judge.requests_per_minute is not None else 0
        pace = f", {slowest:.1f} minutes at least by requests_per_minute" if slowest else ""
        _say(f"judge {judge.name}: {len(pairs)} questions, about {tokens} tokens, {cost}{cap}{pace}")

    def _report(self, asked: int, missing: dict[Pair, str]) -> None:
        _say(f"judge {self._judge.name}: {asked - len(missing)} answered, {self._purse.spent:.4f} US dollars spent")
        for reason in sorted(set(missing.values())):
            count = list(missing.values()).count(reason)
            _say(f"judge {self._judge.name}: {count} without an answer ({reason}); the same command asks only these")


def _used(question: str, reply: str, prompt_tokens: int | None, completion_tokens: int | None) -> tuple[int, int]:
    """Return the tokens that the server counted; where it counts none, about how many there were."""
    return (tokens_of(question) if prompt_tokens is None else prompt_tokens,
            tokens_of(reply) if completion_tokens is None else completion_tokens)  # fmt: skip


def _say(text: str) -> None:
    print(text, file=sys.stderr)
