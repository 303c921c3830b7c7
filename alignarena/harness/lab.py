"""The lab: verbs that are seeded, metered and memoised, over one backbone.

A verb's key is the digest of its inputs and of the code behind them, never a method's name: equal work is done once.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from accelerate.utils import broadcast_object_list, gather_object

from alignarena.core.contract import (
    Backend,
    Experience,
    Judge,
    Loss,
    Policy,
    PreferenceStream,
    Principle,
    Reviser,
    Rows,
    Sampling,
    Schedule,
    Scorer,
    TrainablePolicy,
)
from alignarena.core.degenerate import in_preferences, in_samples, in_scores, must_be_finite
from alignarena.core.digest import digest
from alignarena.core.errors import BadInput, BudgetUsedUp
from alignarena.core.feedback import cost_of_preferring, cost_of_scoring
from alignarena.core.lineage import models, roots
from alignarena.core.records import OF_FITS, OF_SAMPLING, Budget, Ledger
from alignarena.core.rows import column, rows_of, table_of, with_column
from alignarena.core.seeds import derive, generator
from alignarena.harness.backbone import Backbone
from alignarena.harness.batches import examples, grouped, sequences_of
from alignarena.harness.cache import Cache
from alignarena.harness.memo import Account, Memo
from alignarena.harness.packing import row_length, share_prompts
from alignarena.harness.passes import Output, References, computed, whole_prompts
from alignarena.harness.policy import AdapterPolicy, LivePolicy
from alignarena.harness.progress import StageProgress
from alignarena.harness.reward_model import RewardModel
from alignarena.harness.sampler import sample, sampled_row, uniforms
from alignarena.harness.tokens import TokenSequence
from alignarena.harness.trainer import POLICY, Fit

# Raise a verb's revision when a change to the harness changes what it computes: older cache entries are then unused.
REVISIONS = {"sample": 3, "score": 3, "prefer": 2, "revise": 1, "logps": 2, "embed": 1, "fit": 3,
             "fit_reward_model": 3, "train_with": 3}  # fmt: skip


class HarnessLab:
    """The laboratory of one cell (method and seed)."""

    def __init__(
        self, backbone: Backbone, cache: Cache, seed: int, budget: Budget | None = None,
        progress: StageProgress | None = None, account: Account | None = None,
    ) -> None:  # fmt: skip
        self.backbone, self.cache, self.seed = backbone, cache, seed
        self.budget = budget or Budget()
        self.progress = progress or StageProgress(silent=True)
        self.account = account or Account()
        self.memo = Memo(cache, backbone.accelerator, self.account)
        self._limited = True  # whether prompts must keep to model.max_prompt_tokens

    # -- randomness and budget ----------------------------------------------------------------------------------------

    def random(self, *names: object) -> np.random.Generator:
        """Return a generator of its own for (seed, names)."""
        return generator(self.seed, *names)

    @property
    def exhausted(self) -> bool:
        """Tell whether the budget leaves nothing to sample, or nothing to do with samples."""
        return self.reached(OF_SAMPLING)

    def reached(self, counts: Collection[str]) -> bool:
        """Tell whether a limit of these counts is reached, counting the verb under way."""
        under_way = self.memo.meter.so_far if self.memo.meter is not None else Ledger()
        reached = [self.budget.used_up(self.account.charged + under_way, counts) is not None]
        if self.budget.seconds is not None and self.backbone.accelerator.num_processes > 1:
            broadcast_object_list(reached)  # each has a clock of its own: the first one's holds
        return reached[0]

    def _may_buy(self, cost: Collection[str]) -> None:
        """Refuse what costs labels or a labeler's calls once their limit is reached; a purchase is made whole."""
        if self.reached(cost):
            raise self._used_up()

    def _used_up(self) -> BudgetUsedUp:
        self.account.used_up = True
        return BudgetUsedUp(self.account.last_policy)

    def within(self, fraction: float) -> HarnessLab:
        """Return a lab that may spend a fraction of what is left."""
        charged = self.account.charged
        limits = {name: getattr(charged, name) + fraction * (limit - getattr(charged, name))
                  for name, limit in self.budget.limits().items()}  # fmt: skip
        left = Budget(track=self.budget.track, **limits)
        return HarnessLab(self.backbone, self.cache, self.seed, left, self.progress, self.account)

    def owe(self, policy: TrainablePolicy, ledger: Ledger) -> None:
        """Charge the making of a shared policy to this cell when it is first used."""
        self.account.owed[policy.digest] = ledger

    def settle(self, policy: Any) -> None:
        """Charge what is owed for a policy, or for the policy inside a recipe."""
        while policy is not None:
            owed = self.account.owed.pop(policy.digest, None)
            if owed is not None:
                self.account.charged = self.account.charged + owed
            policy = getattr(policy, "policy", None)

    # -- verbs --------------------------------------------------------------------------------------------------------

    def sample(
        self, policy: Policy, rows: Rows, n: int = 1, *, stream: str, sampling: Sampling = Sampling()
    ) -> Rows:
        """Draw n completions a prompt; a recipe such as best-of-n draws its own through this verb."""
        self.settle(policy)
        self.account.lineage |= models(policy)
        if self.exhausted:
            raise self._used_up()
        return policy.complete(self, rows, n, stream=stream, sampling=sampling)

    def sample_adapter(
        self, policy: AdapterPolicy, rows: Rows, n: int, *, stream: str, sampling: Sampling
    ) -> Rows:
        """Draw n completions a prompt from an adapter."""

        def compute() -> Rows:
            sampled = rows_of(pa.Table.from_pylist(self._sample(policy, rows.to_list(), n, stream, sampling)))
            if self._limited:  # what a judge writes for itself is no completion of the comparison
                self.meet(in_samples(sampled))
            return sampled

        inputs = (policy.digest, rows, n, stream, sampling, self.backbone.config.max_new_tokens, self.seed)
        return self._rows("sample", f"sample {stream}", inputs, compute)

    def score(self, rows: Rows, scorer: Scorer) -> Rows:
        """Return the rows with a ``score`` column."""
        self.account.lineage |= roots(scorer)
        self._may_buy(cost := cost_of_scoring(rows, scorer))

        def compute() -> Rows:
            self.memo.metered.add(**cost)
            with self._prompts_of_any_length():
                scores = scorer.score(rows, self)
            prompt_ids = column(rows, "prompt_id")
            for prompt_id, score in zip(prompt_ids, scores, strict=True):
                must_be_finite(score, prompt_id, type(scorer).__name__, "score")
            self.meet(in_scores(prompt_ids, scores))
            return with_column(rows, "score", [float(score) for score in scores])

        return self._rows("score", f"score {type(scorer).__name__}", (rows, scorer, self.seed), compute)

    def prefer(self, rows: Rows, judge: Judge) -> Rows:
        """Ask a judge for rankings; each costs log2(K!) labels once, or a labeler's calls."""
        self.account.lineage |= roots(judge)
        self._may_buy(cost := cost_of_preferring(rows, judge))

        def compute() -> Rows:
            self.memo.metered.add(**cost)
            with self._prompts_of_any_length():
                preferred = judge.prefer(rows, self)
            for row, name in itertools.product(preferred.to_list(), ("probability", "margins", "ranks")):
                if name in row:
                    must_be_finite(row[name], row["prompt_id"], type(judge).__name__, name)
            self.meet(in_preferences(preferred))
            return with_column(preferred, "lineage", [sorted(judge.lineage)] * len(rows))

        return self._rows("prefer", f"prefer {type(judge).__name__}", (rows, judge, self.seed), compute)

    def revise(self, rows: Rows, reviser: Reviser, principles: tuple[Principle, ...], *, stream: str) -> Rows:
        """Critique and rewrite completions by principles."""
        self.account.lineage |= models(getattr(reviser, "writer", None))

        def compute() -> Rows:
            with self._prompts_of_any_length():
                return reviser.revise(rows, principles, self, stream=stream)

        inputs = (rows, reviser, principles, stream, self.seed)
        return self._rows("revise", f"revise {stream}", inputs, compute)

    def logps(self, policy: TrainablePolicy, rows: Rows) -> Rows:
        """Return the rows with the log-probs of their completion tokens under a policy."""
        self.settle(policy)
        return policy.logps(self, rows)

    def adapter_logps(self, policy: AdapterPolicy, rows: Rows) -> Rows:
        """Return the rows with log-probs under an adapter."""

        def compute() -> Rows:
            logps = self._forward(rows, "logps", policy.load(self.backbone))
            return with_column(rows, "logps", logps)

        return self._rows("logps", "log-probs", (policy.digest, rows), compute)

    def embed(self, policy: TrainablePolicy, rows: Rows) -> Rows:
        """Return the rows with the mean final hidden state (D) of an adapter over each completion."""
        self.settle(policy)
        adapter = cast("AdapterPolicy", policy)

        def compute() -> Rows:
            return with_column(rows, "embedding", self._forward(rows, "embeddings", adapter.load(self.backbone)))

        return self._rows("embed", "embeddings", (policy.digest, rows), compute)

    def adapter_scores(self, reward_model: RewardModel, rows: Rows) -> list[float]:
        """Return the scores of a reward model; called through :meth:`score`."""
        return self._forward(rows, "scores", reward_model.load(self.backbone))

    def fit(
        self, policy: TrainablePolicy, experience: Experience, loss: Loss, schedule: Schedule
    ) -> TrainablePolicy:
        """Train a copy of a policy; the policy itself is the reference model."""
        self.settle(policy)
        self.account.lineage |= roots(experience)
        key, folder = self._fit("fit", policy, experience, loss, schedule)
        self.account.last_policy = AdapterPolicy(key, folder)
        return self.account.last_policy

    def fit_reward_model(
        self, start: TrainablePolicy, preferences: Rows | PreferenceStream, loss: Loss, schedule: Schedule
    ) -> Scorer:
        """Train a scalar head and an adapter on a policy's backbone; of an exact stream, return its oracle."""
        self.settle(start)
        self.account.lineage |= (lineage := roots(preferences))
        if isinstance(preferences, PreferenceStream):
            return preferences.oracle
        key, folder = self._fit("fit_reward_model", start, _Once(preferences), loss, schedule)
        return RewardModel(key, folder, lineage)

    def train_with(self, backend: Backend, policy: TrainablePolicy, rows: Rows) -> TrainablePolicy:
        """Train a copy of a policy by another library's trainer; a killed one starts anew."""
        self.settle(policy)
        self.account.lineage |= roots(rows) | roots(backend.scorer)
        key = digest("train_with", REVISIONS["train_with"], self.backbone.digest, policy.digest, backend,
                     backend.version, rows, self.seed, self._limits_that_bind())  # fmt: skip

        def compute(folder: Path) -> None:
            backend.train(policy, rows, self, folder)

        folder = self.memo.stage("train_with", f"train_with {backend.name}", key, compute, lambda path: path)
        self.account.last_policy = AdapterPolicy(key, folder)
        return self.account.last_policy

    def count(self, **counts: float) -> None:
        """Add to the ledger of the verb under way."""
        self.memo.metered.add(**counts)

    def meet(self, found: Mapping[str, int]) -> None:
        """Add to the degenerate inputs that the verb under way met."""
        self.memo.metered.met.update(found)

    def tokens(self, rows: Rows, loss: Loss) -> int:
        """Return the tokens that one epoch of a fit to rows trains on, as a ledger counts them; it costs nothing."""
        items, _ = examples(rows, loss, self.backbone.tokens)
        groups = [sequences_of([items[i] for i in group]) for group in grouped(items)]
        shared = self.backbone.form != "plain"
        return sum(row_length(group, row) for group in groups for row in share_prompts(group, shared))

    def note(self, **values: float) -> None:
        """Record numbers beside the training curves."""
        self.account.notes.append({name: float(value) for name, value in values.items()})

    # -- how a verb runs ----------------------------------------------------------------------------------------------

    def _fit(self, verb: str, start: Any, experience: Experience, loss: Loss, schedule: Schedule) -> tuple[str, Path]:
        key = digest(verb, REVISIONS[verb], self.backbone.digest, start.digest, experience, loss, schedule, self.seed,
                     self._limits_that_bind())  # fmt: skip

        def compute(folder: Path) -> None:
            with self.progress.stage(f"{verb.replace('_', ' ')} {type(loss).__name__}", experience.phases) as stage:
                fit = Fit(
                    backbone=self.backbone, start=start.load(self.backbone),
                    references=References(self.backbone, self.cache, start.digest), experience=experience, loss=loss,
                    schedule=schedule, seed=derive(self.seed, verb), phase_lab=self, meter=self.memo.metered,
                    stage=stage, live=LivePolicy(digest=f"live {key}", adapter=POLICY),
                    budget_left=lambda: not self.reached(OF_FITS), reads_scores=verb == "fit_reward_model",
                )  # fmt: skip
                try:
                    fit.run(self.cache.partial(key))
                    if self.backbone.accelerator.is_main_process:
                        self.backbone.save(POLICY, folder)
                        report = {"dropped": dict(fit.dropped), "stopped": fit.stopped, "loss": type(loss).__name__}
                        (folder / "fit.json").write_text(json.dumps(report))
                        lines = "".join(json.dumps(line) + "\n" for line in fit.log)
                        (folder / "metrics.jsonl").write_text(lines)
                finally:
                    self.backbone.drop(POLICY)

        return key, self.memo.stage(verb, f"{verb} {type(loss).__name__}", key, compute, lambda path: path)

    def _limits_that_bind(self) -> dict[str, float]:
        """Return what a fit may still spend: it ends where that does, so it is part of what it computes."""
        return {name: limit - getattr(self.account.charged, name) for name, limit in self.budget.limits().items()}

    def _rows(self, verb: str, stage: str, inputs: Sequence[object], compute: Callable[[], Rows]) -> Rows:
        if self.memo.meter is not None:
            return compute()
        key = digest(verb, REVISIONS[verb], self.backbone.digest, *inputs)

        def write(folder: Path) -> None:
            rows = compute()
            if self.backbone.accelerator.is_main_process:
                pq.write_table(table_of(rows), folder / "rows.parquet")

        return self.memo.stage(verb, stage, key, write, _read_rows)

    @contextmanager
    def _prompts_of_any_length(self) -> Iterator[None]:
        """Lift the limit that the comparison sets its prompts: what a judge shows a model holds whole completions."""
        before, self._limited = self._limited, False
        try:
            yield
        finally:
            self._limited = before

    # -- work on the model --------------------------------------------------------------------------------------------

    def _sample(
        self, policy: AdapterPolicy, rows: list[dict[str, Any]], n: int, stream: str, sampling: Sampling
    ) -> list[dict[str, Any]]:
        backbone, meter = self.backbone, self.memo.metered
        length = sampling.max_new_tokens or backbone.config.max_new_tokens
        process, processes = backbone.accelerator.process_index, backbone.accelerator.num_processes
        # those of all rows: a prompt that is too long is then refused by every process, not by one of them
        prompts = [backbone.tokens.prompt_of(row, limited=self._limited) for row in rows][process::processes]
        mine = rows[process::processes]
        draws = [uniforms(self.seed, stream, row["prompt_id"], n, length) for row in mine]
        with self.progress.stage(f"sample {stream}", len(mine)) as bar:
            drawn = sample(backbone, policy.load(backbone), prompts, draws, sampling, bar.advance)
        made = [[sampled_row(row, prompt, i, one, backbone) for i, one in enumerate(samples)]
                for row, prompt, samples in zip(mine, prompts, drawn, strict=True)]  # fmt: skip
        new = sum(len(one.completion) for samples in drawn for one in samples)
        counts = gather_object([(sum(map(len, prompts)), new)])
        read, new = (sum(column) for column in zip(*counts, strict=True))
        meter.add(prompts=len(rows), completions=len(rows) * n, sampled_tokens=new, scored_tokens=read,
                  flops=2.0 * backbone.parameters * (read + new))  # fmt: skip
        return [row for samples in self._interleaved(made) for row in samples]

    def _forward(self, rows: Rows, output: Output, variant: str) -> list[Any]:
        """Return an output of the backbone for each row as plain numbers: ``logps`` (T,) or ``scores`` ()."""
        every = [self._sequence(row) for row in rows.to_list()]
        parts = whole_prompts(self.backbone, every)
        total = sum(len(part.sequences) for part in parts)
        with self.progress.stage(f"{output} of {len(rows)} completions", max(1, total)) as bar:
            table = computed(self.backbone, output, variant, parts, self.memo.metered, bar.advance)
        return [table[sequence].tolist() for sequence in every]

    def _sequence(self, row: Mapping[str, Any]) -> TokenSequence:
        tokens = self.backbone.tokens
        (completion,) = tokens.completions_of(row, "completion")
        if not completion:
            raise BadInput(f"the completion of prompt {row.get('prompt_id')!r} has no tokens, not even an end, and "
                           "nothing is likelier than that; leave it out")  # fmt: skip
        return TokenSequence(tokens.prompt_of(row, limited=self._limited), completion)

    def _interleaved(self, mine: list[Any]) -> list[Any]:
        """Put the shards of all processes back in the order of the rows."""
        if self.backbone.accelerator.num_processes == 1:
            return mine
        shards = gather_object([mine])
        total = sum(map(len, shards))
        return [shards[i % len(shards)][i // len(shards)] for i in range(total)]


@dataclass(frozen=True)
class _Once:
    """Fixed rows as an experience (the methods' own class lives above the harness)."""

    data: Rows
    phases: int = 1
    value_start: None = None

    def rows(self, phase: int, policy: Policy, lab: Any) -> Rows:
        return self.data


def _read_rows(folder: Path) -> Rows:
    return rows_of(pq.read_table(folder / "rows.parquet"))


