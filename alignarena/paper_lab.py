"""A lab on paper: every verb checks what it is given and answers with synthetic rows; nothing is trained."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset

from alignarena.core.contract import (
    Backend,
    Experience,
    Loss,
    PreferenceStream,
    Principle,
    Rows,
    Sampling,
    Schedule,
    Scorer,
    Task,
)
from alignarena.core.digest import digest
from alignarena.core.errors import BudgetUsedUp
from alignarena.core.rows import column, rows_of, with_column
from alignarena.core.seeds import generator
from alignarena.paper_loss import check_loss, require

_WORDS = ("a", "quiet", "garden", "gives", "tired", "people", "good", "hope", "and", "warm", "bread", "at", "home")
_PROMPTS, _K, _WIDTH = 8, 4, 4


@dataclass(frozen=True)
class PaperPolicy:
    """A trainable policy that is only a name; what it writes depends on that name, the prompt and the stream."""

    digest: str
    words: tuple[str, ...] = _WORDS  # what it writes with
    longest: int = len(_WORDS)  # words of the longest completion, which is one that was cut

    def complete(self, lab: Any, rows: Rows, n: int, *, stream: str, sampling: Sampling) -> Rows:
        """Write n sentences of known words for each prompt."""
        require("sample" in lab.running, "policy.complete was called directly; use lab.sample")
        return _rows([one for row in rows.to_list() for one in _sampled(self, row, n, lab.seed, stream)])

    def logps(self, lab: Any, rows: Rows) -> Rows:
        """Add a log-prob for each word and for the end."""
        require("logps" in lab.running, "policy.logps was called directly; use lab.logps")
        pairs = zip(column(rows, "prompt"), column(rows, "completion"), strict=True)
        draws = [(generator(0, self.digest, str(prompt), text), len(text.split()) + 1) for prompt, text in pairs]
        return with_column(rows, "logps", [(-draw.random(size)).tolist() for draw, size in draws])


@dataclass(frozen=True)
class PaperScorer:
    """Scores a completion by its words."""

    name: str = "scorer"
    lineage: frozenset[str] = frozenset({"paper"})

    def score(self, rows: Rows, lab: Any) -> list[float]:
        """Return a number in [0, 1) for each row."""
        require("score" in lab.running, "scorer.score was called directly; use lab.score")
        return [float(generator(0, self.name, text).random()) for text in column(rows, "completion")]


@dataclass(frozen=True)
class PaperJudge:
    """Ranks the completions of a prompt by their words, without ties."""

    lineage: frozenset[str] = frozenset({"people"})

    def prefer(self, rows: Rows, lab: Any) -> Rows:
        """Add ranks and margins."""
        require("prefer" in lab.running, "judge.prefer was called directly; use lab.prefer")
        return _rows([{**row, **_ranking(row["completions"])} for row in rows.to_list()])


@dataclass(frozen=True)
class PaperLabeler:
    """Compares two completions or scores one, by their words."""

    writer: PaperPolicy = PaperPolicy("labeler")
    oracle: None = None
    lineage: frozenset[str] = frozenset({"labeler"})

    def calls(self, completions: int) -> int:
        """Return one a completion."""
        return completions

    def score(self, rows: Rows, lab: Any) -> list[float]:
        """Return a number in [0, 1) for each row."""
        return PaperScorer("labeler").score(rows, lab)

    def prefer(self, rows: Rows, lab: Any) -> Rows:
        """Add ranks, margins and the probability that the first is preferred."""
        ranked = PaperJudge().prefer(rows, lab).to_list()
        return _rows(
            [{**row, "probability": 0.5 + row["margins"][0] / 2 * (1 if row["ranks"][0] == 1 else -1)}
             for row in ranked]
        )  # fmt: skip


@dataclass(frozen=True)
class PaperReviser:
    """Appends a word to a completion."""

    def revise(self, rows: Rows, principles: tuple[Principle, ...], lab: Any, *, stream: str) -> Rows:
        """Replace the completions, keeping a critique."""
        require("revise" in lab.running, "reviser.revise was called directly; use lab.revise")
        told = {"principle": principles[0].critique_request, "critique": "curt", "revised": True, "changed": True}
        old = ("completion_ids", "logps", "score")
        return _rows(
            [{**{name: value for name, value in row.items() if name not in old}, **told,
              "completion": row["completion"] + " kindly"} for row in rows.to_list()]
        )  # fmt: skip


@dataclass
class PaperLab:
    """Answers the verbs of :class:`alignarena.core.contract.Lab` without training; breaks off on a broken contract."""

    seed: int = 0
    rollouts_in_budget: int | None = None  # a fit's later ones raise BudgetUsedUp, as in a real lab
    draws_once: bool = True  # refuse a stream that was drawn before; evaluation does that on purpose, to pair policies
    log: list[str] = field(default_factory=list)
    running: list[str] = field(default_factory=list)
    _draws: dict[tuple[str, str, str], str] = field(default_factory=dict)
    _rollouts: int = 0

    def random(self, *names: object) -> np.random.Generator:
        """Return a generator of its own for (seed, names)."""
        return generator(self.seed, "random", *names)

    def sample(self, policy: Any, rows: Rows, n: int = 1, *, stream: str, sampling: Sampling = Sampling()) -> Rows:
        """Let the policy complete, refusing a draw that was made before."""
        _wants(rows, "lab.sample", "prompt_id", "prompt")
        if "fit" in self.running:
            self._count_rollout()
        if self.draws_once:
            self._check_draw(policy, rows, n, stream, sampling)
        with self._verb("sample", f"x{n} {stream}", policy, rows, n, sampling):
            sampled = policy.complete(self, rows, n, stream=stream, sampling=sampling)
        _wants(sampled, "completed rows", "prompt_id", "prompt", "sample", "completion", "finish_reason")
        return sampled

    def score(self, rows: Rows, scorer: Any) -> Rows:
        """Add a score to each row."""
        _wants(rows, "lab.score", "prompt", "completion")
        with self._verb("score", type(scorer).__name__, rows, scorer):
            scores = scorer.score(rows, self)
        require(len(scores) == len(rows), f"lab.score: {len(scores)} scores for {len(rows)} rows")
        return with_column(rows, "score", scores)

    def prefer(self, rows: Rows, judge: Any) -> Rows:
        """Add ranks and margins to rows of completions."""
        _wants(rows, "lab.prefer", "prompt_id", "prompt", "completions")
        with self._verb("prefer", type(judge).__name__, rows, judge):
            return judge.prefer(rows, self)

    def revise(self, rows: Rows, reviser: Any, principles: tuple[Principle, ...], *, stream: str) -> Rows:
        """Rewrite the completions."""
        _wants(rows, "lab.revise", "prompt_id", "prompt", "completion")
        require(bool(principles), "lab.revise: no principles")
        with self._verb("revise", stream, rows, reviser, principles):
            return reviser.revise(rows, principles, self, stream=stream)

    def logps(self, policy: Any, rows: Rows) -> Rows:
        """Add log-probs to each row."""
        _wants(rows, "lab.logps", "prompt", "completion")
        with self._verb("logps", "", policy, rows):
            return policy.logps(self, rows)

    def embed(self, policy: Any, rows: Rows) -> Rows:
        """Add an embedding to each row."""
        _wants(rows, "lab.embed", "prompt", "completion")
        with self._verb("embed", "", policy, rows):
            texts = column(rows, "completion")
            drawn = [generator(0, policy.digest, text).normal(size=_WIDTH).tolist() for text in texts]
            return with_column(rows, "embedding", drawn)

    def fit(self, policy: Any, experience: Experience, loss: Loss, schedule: Schedule) -> PaperPolicy:
        """Draw every phase's rows, call the loss on them, and return another policy."""
        require(isinstance(policy, PaperPolicy), f"lab.fit: {type(policy).__name__} cannot be trained")
        if "values" in loss.needs:
            require(experience.value_start is not None, f"{type(loss).__name__} needs a value model; give value_start")
        key = self._key("fit", policy, experience, loss, schedule)
        with self._verb("fit", f"{type(experience).__name__} {type(loss).__name__}", key, policy):
            for phase in self._phases(experience.phases):
                try:
                    rows = experience.rows(phase, policy, self)
                except BudgetUsedUp:
                    break
                self._train(rows, loss, schedule, scores=False)
                policy = replace(policy, digest=digest(key, phase))
        made: PaperPolicy = replace(policy, digest=digest(key, policy))
        return made

    def fit_reward_model(
        self, start: Any, preferences: Rows | PreferenceStream, loss: Loss, schedule: Schedule
    ) -> Scorer:
        """Call the loss on the preferences and return a scorer named by all inputs; of a stream, its oracle."""
        require(isinstance(start, PaperPolicy), f"lab.fit_reward_model: {type(start).__name__} cannot be trained")
        if isinstance(preferences, PreferenceStream):
            return preferences.oracle
        key = self._key("reward model", start, preferences, loss, schedule)
        with self._verb("fit_reward_model", type(loss).__name__, key, start):
            self._train(preferences, loss, schedule, scores=True)
        return PaperScorer(key)

    def train_with(self, backend: Backend, policy: Any, rows: Rows) -> PaperPolicy:
        """Check the rows, sample and score as the backend would, and return another policy."""
        require(isinstance(policy, PaperPolicy), f"lab.train_with: {type(policy).__name__} cannot be trained")
        columns = (column for pair in backend.reads.values() for column in pair)
        _wants(rows, f"lab.train_with({backend.name})", "prompt_id", "prompt", *columns, *sorted(backend.columns))
        key = self._key("train_with", policy, backend, rows)
        with self._verb("train_with", backend.name, key, policy):
            if backend.scorer is not None:
                drawn = self.sample(policy, rows, backend.n, stream=f"train_with {backend.name}")
                rows = self.score(drawn, backend.scorer)
            self._trained_with(rows, backend)
        made: PaperPolicy = replace(policy, digest=digest(key, policy))
        return made

    def _trained_with(self, rows: Rows, backend: Backend) -> None:
        """Take the rows that a backend trained on."""

    def tokens(self, rows: Rows, loss: Loss) -> int:
        """Return the words of the completions that a loss reads."""
        check_loss(rows, loss, scores=False)
        texts = [text for _, name in loss.reads.values() for text in column(rows, name)]
        return sum(len(text.split()) for text in texts)

    def note(self, **values: float) -> None:
        """Take numbers only."""
        require(all(math.isfinite(value) for value in values.values()), f"lab.note: not finite numbers: {values}")
        self.log.append(f"note {' '.join(values)}")

    def within(self, fraction: float) -> PaperLab:
        """Return this lab: paper is not scarce."""
        require(0 < fraction <= 1, f"lab.within: {fraction} is not a fraction")
        return self

    def _phases(self, phases: int) -> Iterator[int]:
        """Yield the phases of a fit that are gone through."""
        yield from range(phases)

    def _train(self, rows: Rows, loss: Loss, schedule: Schedule, scores: bool) -> None:
        check_loss(rows, loss, scores)

    def _check_draw(self, policy: Any, rows: Rows, n: int, stream: str, sampling: Sampling) -> None:
        prompt_ids = column(rows, "prompt_id")
        call = digest(prompt_ids, n, sampling)
        for prompt_id in prompt_ids:
            drawn = self._draws.setdefault((policy.digest, stream, prompt_id), call)
            require(drawn == call, f"lab.sample draws twice with stream {stream!r}; name another stream")

    def _count_rollout(self) -> None:
        if self.rollouts_in_budget is not None and self._rollouts >= self.rollouts_in_budget:
            raise BudgetUsedUp
        self._rollouts += 1

    def _key(self, *inputs: object) -> str:
        try:
            return digest(self.seed, *inputs)
        except TypeError as error:
            raise AssertionError(f"a stage cannot be memoised: {error}") from error

    @contextmanager
    def _verb(self, name: str, about: str, *inputs: object) -> Iterator[None]:
        self.log.append(f"{name} {about}".strip())
        self.running.append(name)
        try:
            yield
        finally:
            self.running.pop()


def paper_task(messages: bool = False) -> Task:
    """Return a small task; its prompts are texts, or lists of messages."""
    prompts = Dataset.from_list([_prompt(i, messages) for i in range(_PROMPTS)])
    demonstrations = [{**row, "completion": _sentence(row["prompt_id"], "demonstration")} for row in prompts]
    axes = ("overall", "helpful", "harmless")
    return Task(
        base=PaperPolicy("base"),
        policy=PaperPolicy("sft"),
        prompts=prompts,
        demonstrations=Dataset.from_list(demonstrations),
        preferences={axis: Dataset.from_list([_ranked(row, axis) for row in prompts]) for axis in axes},
        annotator=PaperJudge(),
        annotators={"helpful": PaperJudge(), "harmless": PaperJudge()},
        labeler=PaperLabeler(),
        reviser=PaperReviser(),
        principles=(Principle("Is it curt?", "Make it kind."), Principle("Is it false?", "Make it true.")),
        checker=PaperScorer("checker"),
        goal="Be kind.",
    )


def _prompt(i: int, messages: bool) -> dict[str, Any]:
    text = f"Write one sentence about {_WORDS[i]}."
    prompt = [{"role": "user", "content": text}] if messages else text
    return {"prompt_id": f"p{i}", "prompt": prompt, "cluster": f"c{i // 2}", "kind": "ordinary", "axis": "helpful"}


def _ranked(row: dict[str, Any], axis: str) -> dict[str, Any]:
    completions = [_sentence(row["prompt_id"], axis, i) for i in range(_K)]
    shared = {name: row[name] for name in ("prompt_id", "prompt", "cluster")}
    return {**shared, "completions": completions, **_ranking(completions)}


def _ranking(completions: list[str]) -> dict[str, Any]:
    values = [generator(0, "taste", text).random() for text in completions]
    ranks = [1 + sum(other > value for other in values) for value in values]
    margins = [abs(a - b) for a, b in itertools.combinations(values, 2)]
    return {"ranks": ranks, "margins": margins}


def _sampled(policy: PaperPolicy, row: dict[str, Any], n: int, seed: int, stream: str) -> list[dict[str, Any]]:
    kept = {name: value for name, value in row.items() if name not in ("completion", "logps", "score")}
    # as many numbers a completion whatever its length: its words do not depend on how many others are written
    draws = generator(0, seed, policy.digest, stream, row["prompt_id"]).random((n, policy.longest + 1))
    sizes = 1 + (draws[:, 0] * policy.longest).astype(int)
    every = (draws[:, 1:] * len(policy.words)).astype(int).tolist()
    found = [ids[:size] for ids, size in zip(every, sizes.tolist(), strict=True)]
    return [
        {
            **kept,
            "sample": i,
            "completion": " ".join([policy.words[one] for one in ids]),
            "prompt_ids": [0, 1, 2],
            "completion_ids": ids,
            "finish_reason": "length" if len(ids) == policy.longest else "stop",
            "logps": [-1.0] * len(ids),
        }
        for i, ids in enumerate(found)
    ]


def _sentence(*names: object) -> str:
    draw = generator(0, *names)
    return " ".join(draw.choice(_WORDS, size=int(draw.integers(1, len(_WORDS) + 1))))


def _rows(rows: list[dict[str, Any]]) -> Rows:
    return rows_of(pa.Table.from_pylist(rows))


def _wants(rows: Rows, where: str, *columns: str) -> None:
    require(isinstance(rows, Dataset), f"{where}: rows are a datasets.Dataset, got {type(rows).__name__}")
    require(len(rows) > 0, f"{where}: no rows")
    missing = [name for name in columns if name not in rows.column_names]
    require(not missing, f"{where}: no column {', '.join(missing)}; the rows have {', '.join(rows.column_names)}")
