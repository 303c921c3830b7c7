"""The contract: a method turns a task into a policy, using only the lab's verbs.

Rows are `datasets.Dataset`s of plain columns:

* prompts: ``prompt_id, prompt, cluster, kind, axis``; a prompt is text (one user turn) or a list of
  ``{"role", "content"}`` messages;
* demonstrations: ``prompt_id, prompt, completion``;
* sampled rows: ``prompt_id, prompt, cluster, sample, completion, prompt_ids, completion_ids, logps, finish_reason``
  (``stop`` or ``length``); sampled ids are never re-tokenised;
* pairs: ``prompt_id, prompt, chosen, rejected``, and where known ``margin`` and ``probability`` (that the chosen one is
  preferred; a loss of soft labels reads it);
* rankings: ``prompt_id, prompt, completions`` (K texts), ``ranks`` (1 is best, ties share a rank) and ``margins`` (one
  a pair, in the order of ``itertools.combinations(range(K), 2)``); of two completions that a labeler compared,
  ``probability`` too: that the first is the better one.

A completion column may have a span beside it, ``chosen_span`` for ``chosen``: ``[start, stop)`` of the tokens that are
the segment judged or trained on; the tokens before it are context.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    from datasets import Dataset

    Rows: TypeAlias = Dataset
else:
    Rows = Any  # this module imports no datasets either: it opens in an instant

Tensor = Any  # a torch.Tensor; this module imports no torch
NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn: the same for every method of a comparison."""

    max_new_tokens: int | None = None  # None: the suite's limit
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0  # 0: all tokens


@dataclass(frozen=True)
class Schedule:
    """How a fit goes over its rows. A batch counts prompts, as InstructGPT's does: all rows of a prompt go together."""

    learning_rate: float = 1e-4
    num_train_epochs: int = 1
    batch_size: int = 16  # prompts an optimiser step, over all devices
    warmup_ratio: float = 0.0
    lr_scheduler_type: Literal["constant", "linear", "cosine"] = "constant"
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    adam_epsilon: float = 1e-8
    validation_share: float = 0.0  # of the prompts, held out of a fixed set: the epoch of least loss on them is kept


class Policy(Protocol):
    """Anything that completes prompts: a checkpoint, or a recipe such as best-of-n."""

    @property
    def digest(self) -> str:
        """Name of its content."""
        ...

    def complete(self, lab: Lab, rows: Rows, n: int, *, stream: str, sampling: Sampling) -> Rows:
        """Return n sampled rows for each prompt; called through :meth:`Lab.sample`."""
        ...


@runtime_checkable
class TrainablePolicy(Policy, Protocol):
    """A policy with log-probs of its own: only these can be the start of a fit or a reference model."""

    def logps(self, lab: Lab, rows: Rows) -> Rows:
        """Return the rows with ``logps``, the log-probs in nats of their completion tokens."""
        ...


@runtime_checkable
class Scorer(Protocol):
    """Rates one completion: a reward model, a rule, or a mix of them. A frozen dataclass, or it has a digest."""

    @property
    def lineage(self) -> frozenset[str]:
        """The root scorers it was made from; they decide who may judge a verdict."""
        ...

    def score(self, rows: Rows, lab: Lab) -> list[float]:
        """Return one score a row; called through :meth:`Lab.score`."""
        ...


@runtime_checkable
class Judge(Protocol):
    """Compares completions of a prompt: people, simulated or not, a model. A frozen dataclass, or it has a digest."""

    @property
    def lineage(self) -> frozenset[str]:
        """As a scorer's."""
        ...

    def prefer(self, rows: Rows, lab: Lab) -> Rows:
        """Take rows with ``completions`` and add ``ranks`` and ``margins``; called through :meth:`Lab.prefer`.

        A labeler compares a row that has a ``principle`` (text) by that.
        """
        ...


@runtime_checkable
class Labeler(Protocol):
    """What a judge or scorer is besides, where AI answers: asking it costs labeler calls, asking people labels.

    A judge that is one compares two completions at a time and adds the ``probability`` that the first is preferred.
    """

    @property
    def writer(self) -> TrainablePolicy | None:
        """The language model that answers; None: a program does, which writes nothing."""
        ...

    @property
    def oracle(self) -> Scorer | None:
        """Where the truth is known and feedback without end: what a reward model fitted to all its preferences is."""
        ...

    def calls(self, completions: int) -> int:
        """Return the calls that a row takes: of so many completions to compare, or of one to score."""
        ...


class Reviser(Protocol):
    """Critiques a completion by a principle and rewrites it."""

    def revise(self, rows: Rows, principles: tuple[Principle, ...], lab: Lab, *, stream: str) -> Rows:
        """Return the rows with ``completion`` replaced, and what belonged to the old one taken out.

        Added are ``principle`` (its critique request), ``critique``, ``revised``, which is false where no revision came
        out and the old completion stands, and ``changed``, whether it is another text now.
        """
        ...


@dataclass(frozen=True)
class Principle:
    """One line of a constitution: what to look for, what to do about it, and what to prefer."""

    critique_request: str
    revision_request: str
    comparison: str = ""  # what the better of two completions does; empty: the critique request says it

    @property
    def criterion(self) -> str:
        """What a labeler is told to compare by."""
        return self.comparison or self.critique_request


class Experience(Protocol):
    """Where the rows of a fit come from: a fixed set, or fresh rollouts of the policy being trained."""

    @property
    def phases(self) -> int:
        """How often rows are drawn: 1 for a fixed set, the number of updates for rollouts."""
        ...

    @property
    def value_start(self) -> Scorer | TrainablePolicy | None:
        """What a value model starts from, where the loss needs one: a reward model, or a policy and a head of zeros."""
        ...

    def rows(self, phase: int, policy: Policy, lab: Lab) -> Rows:
        """Return the rows of one phase; a phase depends on nothing but the policy and its number."""
        ...


@runtime_checkable
class PreferenceStream(Experience, Protocol):
    """Preferences without end, where the truth is known: pairs with their exact ``probability``, fresh every phase."""

    @property
    def oracle(self) -> Scorer:
        """What preferences are made from: a reward model fitted to all of them would be this."""
        ...


@dataclass
class Batch:
    """What a loss sees beside the outputs of the model. Keys of the mappings are the keys of ``Loss.reads``.

    Shapes: B rows, T completion tokens (padded), K completions of a K-wise row: then (B, K, T) and (B, K).
    """

    mask: Mapping[str, Tensor]  # (B, T): 1.0 where a completion token is, 0.0 on padding and outside a row's span
    finished: Mapping[str, Tensor] = field(default_factory=dict)  # (B,): True where the completion ends by itself
    reference: Mapping[str, Tensor] = field(default_factory=dict)  # (B, T): log-probs of the reference model, nats
    old: Mapping[str, Tensor] = field(default_factory=dict)  # (B, T): log-probs of the policy that sampled the batch
    values: Mapping[str, Tensor] = field(default_factory=dict)  # (B, T): values now, before each token
    old_values: Mapping[str, Tensor] = field(default_factory=dict)  # (B, T): values when the batch was sampled
    columns: Mapping[str, Tensor] = field(default_factory=dict)  # (B,) or (B, K): the scalars in Loss.columns
    prepared: dict[str, Tensor] = field(default_factory=dict)  # what Loss.prepare adds, rows first


class Loss(Protocol):
    """A pure function from log-probs (or scores) to one loss a row; the trainer knows nothing else of a method."""

    per: ClassVar[Literal["row", "token"]]  # what the mean over a batch divides by

    @property
    def reads(self) -> Mapping[str, tuple[str, str]]:
        """{"chosen": ("prompt", "chosen")}: prompt column, completion column; a constant where no field decides."""
        ...

    @property
    def needs(self) -> frozenset[str]:
        """Subset of {"reference", "old", "values"}; a class constant where no field decides."""
        ...

    @property
    def columns(self) -> frozenset[str]:
        """Numeric columns of the rows it wants; a class constant where no field decides."""
        ...

    def prepare(self, batch: Batch, state: dict[str, float]) -> dict[str, Tensor]:
        """Compute once a phase, without gradient, what all its epochs share: rewards, advantages, controllers."""
        ...

    def __call__(self, outputs: Mapping[str, Tensor], batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the loss of each row (B,) and metrics (B,), all to be averaged as ``per`` says.

        Args:
            outputs: Log-probs (B, T) in nats, or scores (B,) in a reward-model fit, by the keys of ``reads``.
            batch: Masks, reference and old log-probs, values and columns of the same rows.
        """
        ...


@dataclass(frozen=True)
class Task:
    """What every method of a comparison is given, identically."""

    base: TrainablePolicy  # before SFT (Llama 2's versions restart from it)
    policy: TrainablePolicy  # the start, and the reference model: the SFT policy, or what a chain's last stage gave
    prompts: Rows  # the training prompts
    demonstrations: Rows  # prompt, completion (SFT again, pretraining mix)
    # rankings by axis, "overall" always, computed and charged when first read; a stream where feedback is unlimited
    preferences: Mapping[str, Rows | PreferenceStream]
    annotator: Judge | None = None  # the people, simulated or not: asking costs labels; None: they can't be asked
    annotators: Mapping[str, Judge] = field(default_factory=dict)  # who ranks by the further axes of preferences
    labeler: Judge | Scorer | None = None  # the AI feedback model: costs labeler calls
    reviser: Reviser | None = None  # critique and revise
    principles: tuple[Principle, ...] = ()  # the constitution
    checker: Scorer | None = None  # of a verifiable task: 1 for a right completion, 0 for a wrong one
    goal: str = ""  # what the annotator likes, in words: information that only some methods may use
    # instructions that name a grade of answer, worst first; they say nothing of what makes an answer good
    grades: tuple[str, ...] = ("Give a poor answer.", "Give an average answer.", "Give an excellent answer.")
    sft: TrainablePolicy | None = None  # the SFT policy, where `policy` was trained beyond it: reward models start here


class Backend(Protocol):
    """Another library's trainer with its settings: a frozen dataclass, so that its content has a digest."""

    @property
    def name(self) -> str:
        """What its library calls it."""
        ...

    @property
    def version(self) -> str:
        """Its library and the version, part of what it computes; ``BadInput`` where it cannot be used."""
        ...

    @property
    def schedule(self) -> Schedule:
        """How it goes over its rows."""
        ...

    @property
    def reads(self) -> Mapping[str, tuple[str, str]]:
        """As a loss's; empty where it samples completions of its own."""
        ...

    @property
    def columns(self) -> frozenset[str]:
        """As a loss's."""
        ...

    @property
    def n(self) -> int:
        """Completions that it samples for each row; 0: it reads them."""
        ...

    @property
    def scorer(self) -> Scorer | None:
        """What scores its samples."""
        ...

    def train(self, policy: TrainablePolicy, rows: Rows, lab: Lab, folder: Path) -> None:
        """Train a copy of the policy and write it into the folder as the lab reads its own; see Lab.train_with."""
        ...


class Lab(Protocol):
    """The shared harness: every verb is seeded, metered and memoised by its inputs."""

    seed: int

    def random(self, *names: object) -> np.random.Generator:
        """Return a generator of its own for (seed, names)."""
        ...

    def sample(
        self, policy: Policy, rows: Rows, n: int = 1, *, stream: str, sampling: Sampling = Sampling()
    ) -> Rows:
        """Draw n completions a prompt. Two draws from one policy differ by ``stream``."""
        ...

    def score(self, rows: Rows, scorer: Scorer) -> Rows:
        """Return the rows with a ``score`` column."""
        ...

    def prefer(self, rows: Rows, judge: Judge) -> Rows:
        """Return rows of ``completions`` with ``ranks`` and ``margins``; a ranking of K costs log2(K!) labels once.

        A :class:`Labeler` costs its calls instead, here and in :meth:`score`.
        """
        ...

    def revise(self, rows: Rows, reviser: Reviser, principles: tuple[Principle, ...], *, stream: str) -> Rows:
        """Return the rows critiqued and rewritten by the principles."""
        ...

    def logps(self, policy: TrainablePolicy, rows: Rows) -> Rows:
        """Return the rows with ``logps``: log-probs in nats of the completion tokens under the policy."""
        ...

    def embed(self, policy: TrainablePolicy, rows: Rows) -> Rows:
        """Return the rows with ``embedding``: the mean final hidden state of the policy over each completion."""
        ...

    def fit(
        self, policy: TrainablePolicy, experience: Experience, loss: Loss, schedule: Schedule
    ) -> TrainablePolicy:
        """Train a copy of the policy; the policy itself is the reference model."""
        ...

    def fit_reward_model(
        self, start: TrainablePolicy, preferences: Rows | PreferenceStream, loss: Loss, schedule: Schedule
    ) -> Scorer:
        """Train a scalar head and an adapter on the start's backbone; of an exact stream, return its oracle."""
        ...

    def train_with(self, backend: Backend, policy: TrainablePolicy, rows: Rows) -> TrainablePolicy:
        """Train a copy of the policy by another library's trainer, metered as a fit; the policy is its reference."""
        ...

    def tokens(self, rows: Rows, loss: Loss) -> int:
        """Return the tokens that one epoch of a fit to rows trains on, as a ledger counts them; it costs nothing."""
        ...

    def note(self, **values: float) -> None:
        """Record numbers that no loss can know, such as how many rows a filter kept: a point of the training curves."""
        ...

    def within(self, fraction: float) -> Lab:
        """Return a lab that may spend a fraction of what is left (the arms of a chain)."""
        ...


class Method(Protocol):
    """An alignment method. Fields are the hyperparameters; there is no other state."""

    def align(self, task: Task, lab: Lab) -> Policy:
        """Return the aligned policy."""
        ...
