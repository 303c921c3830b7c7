"""What a comparison would cost: a lab on paper that counts the work of every stage instead of doing it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from alignarena.core.contract import Backend, Experience, Loss, PreferenceStream, Rows, Sampling, Schedule, Scorer
from alignarena.core.digest import digest
from alignarena.core.feedback import cost_of_preferring, cost_of_scoring
from alignarena.core.records import Ledger
from alignarena.harness.validation import held_out_prompts
from alignarena.paper_lab import PaperLab, PaperPolicy, PaperScorer

_COUNTED = 8  # phases of a fit that are gone through; hundreds would make a plan take as long as the run


@dataclass(frozen=True)
class Sizes:
    """How long things are, in tokens; a completion yet to be sampled is taken to be half of what is allowed."""

    max_new_tokens: int
    parameters: int  # of the base model; 0: unknown, and nothing is said of time
    prompt: Callable[[Any], int]
    completion: Callable[[str], int]

    @property
    def sampled(self) -> float:
        """The guessed length of a sampled completion."""
        return self.max_new_tokens / 2

    def of(self, row: dict[str, Any], column: str) -> dict[str, float]:
        """Return the lengths of a row's distinct completions in a column, by text."""
        value = row[column]
        texts = [value] if isinstance(value, str) else value
        drawn = row.get(f"{column}_ids") is not None
        return {text: self.sampled if drawn else self.completion(text) for text in texts}


@dataclass(frozen=True)
class Stage:
    """One verb's work: ``key`` names its inputs, so that equal work of two methods is done once."""

    key: str
    name: str  # as the cache records it: "fit DPOLoss", "sample annotator"
    ledger: Ledger


@dataclass
class CountingLab(PaperLab):
    """Meters as the harness does, from the numbers of rows and the lengths of texts. Shared prompts count once."""

    sizes: Sizes = field(kw_only=True)
    stages: list[Stage] = field(default_factory=list)
    used: set[str] = field(default_factory=set)  # digests of the policies that verbs were given
    _ledger: Ledger = field(default_factory=Ledger)

    @property
    def total(self) -> Ledger:
        """The work of all stages."""
        return sum((stage.ledger for stage in self.stages), Ledger())

    def count(self, forward: float = 0.0, backward: float = 0.0, **counts: float) -> None:
        """Add to the stage under way.

        Args:
            forward: Tokens through a forward pass only, sampled ones included.
            backward: Tokens through forward and backward.
            **counts: Other counts of the ledger.
        """
        flops = self.sizes.parameters * (2.0 * forward + 6.0 * backward)
        self._ledger = self._ledger + Ledger(flops=flops, **counts)  # type: ignore[arg-type]

    def prefer(self, rows: Rows, judge: Any) -> Rows:
        """Count the labels of each ranking, or the calls of a labeler."""
        with self._verb("prefer", type(judge).__name__, "labels", rows, judge):
            self.count(**cost_of_preferring(rows, judge))
        return super().prefer(rows, judge)

    def score(self, rows: Rows, scorer: Any) -> Rows:
        """Count the calls of a labeler."""
        cost = cost_of_scoring(rows, scorer)
        if cost:
            with self._verb("score", type(scorer).__name__, "calls", rows, scorer):
                self.count(**cost)
        return super().score(rows, scorer)

    def embed(self, policy: Any, rows: Rows) -> Rows:
        """Count a forward pass."""
        with self._verb("embed", "embeddings", policy, rows):
            _count_forward(self, rows)
        return super().embed(policy, rows)

    def tokens(self, rows: Rows, loss: Loss) -> int:
        """Return what one epoch trains on."""
        return round(sum(self._by_prompt(rows, loss).values()))

    def fit(self, policy: Any, experience: Experience, loss: Loss, schedule: Schedule) -> PaperPolicy:
        """Count a fit; only of a set that is read again and again is something held out."""
        if experience.phases > 1:
            schedule = replace(schedule, validation_share=0.0)
        return super().fit(policy, experience, loss, schedule)

    def fit_reward_model(
        self, start: Any, preferences: Rows | PreferenceStream, loss: Loss, schedule: Schedule
    ) -> Scorer:
        """Return a scorer whose forward passes count."""
        fitted = super().fit_reward_model(start, preferences, loss, schedule)
        return CountedScorer(fitted.name) if isinstance(fitted, PaperScorer) else fitted

    def _phases(self, phases: int) -> Iterator[int]:
        """Yield some phases; those left out are taken to cost what these did on average, the first one apart."""
        first = self._ledger
        for phase in super()._phases(min(phases, _COUNTED)):
            yield phase
            first = self._ledger if phase == 0 else first
        if phases > _COUNTED:
            self._ledger = self._ledger + (self._ledger - first).times((phases - _COUNTED) / (_COUNTED - 1))

    def _train(self, rows: Rows, loss: Loss, schedule: Schedule, scores: bool) -> None:
        super()._train(rows, loss, schedule, scores)
        groups = self._by_prompt(rows, loss)
        share = schedule.validation_share if self._ledger == Ledger() else 0.0  # rows that were paid for are fresh
        held, epochs = held_out_prompts(len(groups), share), schedule.num_train_epochs
        passes, tokens = 2 if "values" in loss.needs else 1, sum(groups.values())
        validated = tokens * passes * held / len(groups) * (epochs + bool(held))  # before the first epoch, too
        trained = tokens * passes * (1 - held / len(groups)) * epochs
        steps = math.ceil((len(groups) - held) / schedule.batch_size) * epochs
        read = tokens * len(loss.needs) + validated
        self.count(read, trained, trained_tokens=trained, scored_tokens=read, optimizer_steps=steps)

    def _trained_with(self, rows: Rows, backend: Backend) -> None:
        """Count what another library computes: it shares no prompts, and reads the reference model at every step."""
        columns = [column for _, column in backend.reads.values()] or ["completion"]
        tokens = sum(
            self.sizes.prompt(row["prompt"]) + sum(self.sizes.of(row, column).values())
            for row in rows.to_list()
            for column in columns
        )
        prompts = len(rows) // backend.n if backend.n else len(set(rows["prompt_id"][:]))
        epochs = backend.schedule.num_train_epochs
        trained, steps = tokens * epochs, math.ceil(prompts / backend.schedule.batch_size) * epochs
        self.count(trained, trained, trained_tokens=trained, scored_tokens=trained, optimizer_steps=steps)

    def _by_prompt(self, rows: Rows, loss: Loss) -> dict[str, float]:
        """Return the tokens of each prompt: every column it is read from, with the distinct completions after it."""
        groups: dict[str, dict[tuple[str, str], float]] = {}
        for row in rows.to_list():
            lengths = groups.setdefault(str(row["prompt_id"]), {})
            for prompt, column in loss.reads.values():
                lengths.setdefault((prompt, ""), self.sizes.prompt(row[prompt]))
                lengths |= {(prompt, f"= {text}"): length for text, length in self.sizes.of(row, column).items()}
        return {prompt_id: sum(lengths.values()) for prompt_id, lengths in groups.items()}

    @contextmanager
    def _verb(self, name: str, about: str, *inputs: object) -> Iterator[None]:
        self.used |= {value.digest for value in inputs if isinstance(value, PaperPolicy)}
        if self.running:  # inside another verb, whose stage this belongs to
            with super()._verb(name, about, *inputs):
                yield
            return
        self._ledger = Ledger()
        with super()._verb(name, about, *inputs):
            yield
        label = about.partition(" ")[2] or about if name in ("sample", "fit") else about
        key = digest(name, about, *inputs)
        if all(stage.key != key for stage in self.stages):  # what is asked for twice is done and charged once
            self.stages.append(Stage(key, f"{name} {label}", self._ledger))


@dataclass(frozen=True)
class CountedPolicy(PaperPolicy):
    """A policy on paper whose completions and log-probs count."""

    def complete(self, lab: Any, rows: Rows, n: int, *, stream: str, sampling: Sampling) -> Rows:
        """Count the prompts read and, at most, the tokens sampled."""
        sizes: Sizes = lab.sizes
        longest = sampling.max_new_tokens or sizes.max_new_tokens
        read, drawn = sum(map(sizes.prompt, rows["prompt"][:])), len(rows) * n
        lab.count(
            forward=read + drawn * longest / 2,
            prompts=len(rows),
            completions=drawn,
            sampled_tokens=drawn * longest,
            scored_tokens=read,
        )
        return super().complete(lab, rows, n, stream=stream, sampling=sampling)

    def logps(self, lab: Any, rows: Rows) -> Rows:
        """Count a forward pass."""
        _count_forward(lab, rows)
        return super().logps(lab, rows)


@dataclass(frozen=True)
class CountedScorer(PaperScorer):
    """A reward model on paper whose scores count."""

    def score(self, rows: Rows, lab: Any) -> list[float]:
        """Count a forward pass."""
        _count_forward(lab, rows)
        return super().score(rows, lab)


def _count_forward(lab: Any, rows: Rows) -> None:
    sizes: Sizes = lab.sizes
    read: dict[str, float] = {}
    for row in rows.to_list():
        read[str(row["prompt_id"])] = read.get(str(row["prompt_id"])) or sizes.prompt(row["prompt"])
        read[f"{row['prompt_id']} {row['completion']}"] = sum(sizes.of(row, "completion").values())
    tokens = sum(read.values())
    lab.count(forward=tokens, scored_tokens=tokens)
