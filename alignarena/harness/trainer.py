"""One training loop for every loss: it knows rows, log-probs, scores and values, and no method's name.

A phase draws rows, runs the frozen passes (reference, old, values) once, lets the loss prepare what its epochs share,
and takes optimiser steps. Gradients of the adapters are summed over processes; the frozen base is never synchronised.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor

from alignarena.core.contract import Batch, Experience, Loss, Policy, Schedule
from alignarena.core.errors import BudgetUsedUp, RunFailed
from alignarena.core.feedback import Standardised
from alignarena.core.records import Ledger
from alignarena.core.seeds import derive, generator
from alignarena.harness.backbone import Backbone
from alignarena.harness.batches import Collator, Example, examples, grouped, sequences_of
from alignarena.harness.checkpoint import Checkpoint
from alignarena.harness.meter import Meter
from alignarena.harness.packing import micro_batches
from alignarena.harness.passes import Output, References, Table, computed
from alignarena.harness.progress import Stage
from alignarena.harness.tokens import TokenSequence
from alignarena.harness.weights import BASE

POLICY, VALUE = "training-policy", "training-value"


@dataclass
class Fit:
    """One fit under way. ``phase_lab`` is for rollouts: metered, not memoised, raising when the budget is used up."""

    backbone: Backbone
    start: str  # variant it starts from, and the reference model
    references: References  # its log-probs
    experience: Experience
    loss: Loss
    schedule: Schedule
    seed: int
    phase_lab: Any
    live: Policy
    meter: Meter
    stage: Stage
    budget_left: Callable[[], bool] = lambda: True
    reads_scores: bool = False  # a reward model: outputs are scores instead of log-probs
    state: dict[str, float] = field(default_factory=dict)
    log: list[dict[str, Any]] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    stopped: str = "finished"

    def run(self, checkpoint_folder: Any) -> None:
        """Train; the result is in the variant ``training-policy`` (and its head)."""
        for _ in self.each_step(checkpoint_folder):
            pass

    def each_step(self, checkpoint_folder: Any) -> Generator[dict[str, Any]]:
        """Train one optimiser step a time; yields the log line of each."""
        self.backbone.reference = self.start
        adapters = self._add_adapters()
        try:
            with self.backbone.training(*adapters) as parameters:
                optimizer = _optimizer(parameters, self.schedule)
                checkpoint = Checkpoint(checkpoint_folder, self.backbone, adapters, optimizer)
                done = self._resume(checkpoint)
                try:
                    yield from self._phases(parameters, optimizer, checkpoint, done)
                except BudgetUsedUp:
                    self.stopped = "budget"
        finally:
            self.backbone.reference = BASE
            if VALUE in adapters:
                self.backbone.drop(VALUE)

    def _add_adapters(self) -> list[str]:
        self.backbone.add(POLICY, like=self.start, seed=derive(self.seed, "adapter") % 2**31)
        if self.reads_scores:
            self.backbone.add_head(POLICY, seed=derive(self.seed, "head") % 2**31)
        if "values" not in self.loss.needs:
            return [POLICY]
        start = self.experience.value_start
        scorer = start.scorer if isinstance(start, Standardised) else start
        load = getattr(scorer, "load", None)
        name = load(self.backbone) if load is not None else self.start
        self.backbone.add(VALUE, like=name, seed=derive(self.seed, "value") % 2**31)
        self.backbone.add_head(VALUE, seed=0)
        with torch.no_grad():
            head = self.backbone.heads[VALUE]
            if load is None:
                head.weight.zero_()  # nothing to start from: every value is 0
                return [POLICY, VALUE]
            head.load_state_dict(self.backbone.heads[name].state_dict())
            if isinstance(start, Standardised):
                head.weight.div_(start.std)
                head.bias.sub_(start.mean).div_(start.std)
        return [POLICY, VALUE]

    def _resume(self, checkpoint: Checkpoint) -> tuple[int, int]:
        """Return the phase and the step in it to go on from."""
        progress = checkpoint.read()
        if progress is None:
            return 0, 0
        self.state, self.log = progress["state"], progress["log"]
        self.dropped = Counter(progress["dropped"])
        self.meter.restore(Ledger.from_dict(progress["ledger"]))
        self.stage.advance(progress["phase"] + progress["share"])
        return progress["phase"], progress["step"]

    def _phases(
        self, parameters: list[Any], optimizer: torch.optim.Optimizer, checkpoint: Checkpoint, done: tuple[int, int]
    ) -> Iterator[dict[str, Any]]:
        for number in range(done[0], self.experience.phases):
            if not self.budget_left():
                raise BudgetUsedUp
            first = done[1] if number == done[0] else 0
            charged, state = self.meter.ledger, dict(self.state)
            rows = self.experience.rows(number, self.live, self.phase_lab)
            # rows that cost work, and old log-probs and values, come from the policy at the start of the phase
            repeatable = self.meter.ledger == charged and not self.loss.needs & {"old", "values"}
            items, dropped = examples(rows, self.loss, self.backbone.tokens)
            phase = Phase(self, number, items)
            phase.freeze(shared=self.meter.ledger == charged)
            if first:  # all this was counted before the kill
                self.state = state
                self.meter.restore(charged)
            else:
                self.dropped.update(dropped)
            for step, micro in phase.steps(first):
                if not self.budget_left():
                    raise BudgetUsedUp
                self._step(phase, step, micro, parameters, optimizer)
                at_end = step + 1 == phase.total_steps
                if checkpoint.due and (at_end or repeatable):
                    self._save(checkpoint, *((number + 1, 0) if at_end else (number, step + 1)), phase.total_steps)
                yield self.log[-1]

    def _save(self, checkpoint: Checkpoint, phase: int, step: int, steps: int) -> None:
        share = step / steps
        checkpoint.write(
            {
                "phase": phase,
                "step": step,
                "share": share,
                "state": self.state,
                "log": self.log,
                "dropped": dict(self.dropped),
                "ledger": self.meter.ledger.to_dict(),
            }
        )

    def _step(
        self, phase: Phase, step: int, micro: list[list[Example]], parameters: list[Any], optimizer: Any
    ) -> None:
        steps = self.experience.phases * phase.total_steps
        rate = self.schedule.learning_rate * _factor(self.schedule, phase.number * phase.total_steps + step, steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
        divisor = phase.divisor(step)
        sums: dict[str, float] = defaultdict(float)
        tokens = 0
        for part in micro:
            loss, metrics, used = phase.loss(part)
            mean = loss.sum() / divisor
            mean.backward()  # type: ignore[no-untyped-call]
            tokens += used
            sums["loss"] += mean.item()
            for name, value in metrics.items():
                sums[name] += value.sum().item() / divisor
        sums, tokens = self._over_processes(sums, tokens, parameters)
        if not math.isfinite(sums["loss"]):
            raise RunFailed(
                f"{type(self.loss).__name__}: the loss is {sums['loss']} at phase {phase.number}, step {step}; "
                "lower the learning_rate"
            )
        # each model by its own norm: a value model that is far off must not shrink the policy's step
        norms = {name: torch.nn.utils.clip_grad_norm_(self.backbone.parameters_of(name), self.schedule.max_grad_norm)
                 for name in sorted(self.backbone.trainable)}  # fmt: skip
        optimizer.step()
        per_token = self.backbone.weights.flops_per_token * self.backbone.parameters
        self.meter.add(trained_tokens=tokens, optimizer_steps=1, flops=per_token * tokens)
        self.stage.advance(1 / phase.total_steps, tokens)
        line = {"phase": phase.number, "step": len(self.log), **sums, "learning_rate": rate}
        self.log.append({**line, "grad_norm": float(norms[POLICY]), "tokens": tokens, **self.state})

    def _over_processes(
        self, sums: dict[str, float], tokens: int, parameters: list[Any]
    ) -> tuple[dict[str, float], int]:
        """Sum gradients, metrics and tokens over all processes."""
        accelerator = self.backbone.accelerator
        if accelerator.num_processes == 1:
            return sums, tokens
        for parameter in parameters:
            grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = accelerator.reduce(grad, "sum")
        total: dict[str, float] = defaultdict(float)
        counted = 0
        for other_sums, other_tokens in gather_object([(dict(sums), tokens)]):
            for name, value in other_sums.items():
                total[name] += value
            counted += other_tokens
        return total, counted


class Phase:
    """The rows of one phase with their frozen passes, cut into steps and micro-batches."""

    def __init__(self, fit: Fit, number: int, items: list[Example]) -> None:
        self.fit, self.number, self.items = fit, number, items
        self.groups = grouped(items)
        self.steps_per_epoch = math.ceil(len(self.groups) / fit.schedule.batch_size)
        self.total_steps = self.steps_per_epoch * fit.schedule.num_train_epochs
        self.frozen: dict[str, Table] = {}
        self.prepared: dict[str, Tensor] = {}
        self._place = {id(example): i for i, example in enumerate(items)}

    # -- what is fixed while the phase lasts ------------------------------------------------------------------------

    @torch.no_grad()
    def freeze(self, shared: bool) -> None:
        """Run the passes the loss needs and let it prepare; ``shared``: other fits may read the same rows."""
        fit = self.fit
        needs = fit.loss.needs & {"reference", "old", "values"}
        # laid out as the first epoch will be, so that its first ratio is 1 to the last bit
        steps = range(self.steps_per_epoch if needs else 0)
        parts = [sequences_of(part) for step in steps for part in self._micro(step)]
        if "reference" in needs:
            # before its first step the policy is its reference, and in the same precision: full fine-tuning trains in
            # fp32 what it keeps in bf16, and DPO's loss would not start at log 2
            variant = fit.start if fit.log else POLICY
            self.frozen["reference"] = fit.references.logps(variant, parts, fit.meter, shared)
        passes: dict[str, tuple[Output, str]] = {"old": ("logps", POLICY), "values": ("values", VALUE)}
        for name, (output, variant) in passes.items():
            if name in needs:
                self.frozen[name] = computed(fit.backbone, output, variant, parts, fit.meter)
        prepared = self.fit.loss.prepare(self._batch(self.items, sequences_of(self.items)), self.fit.state)
        self.prepared = {name: value.cpu() for name, value in prepared.items()}

    def _batch(self, items: Sequence[Example], sequences: list[TokenSequence]) -> Batch:
        collator = Collator(items, sequences, self.fit.backbone.tokens)
        batch = collator.batch(self.fit.backbone.accelerator.device)
        lengths = [len(s.completion) for s in sequences]
        for name, into in (("reference", "reference"), ("old", "old"), ("values", "old_values")):
            if name in self.frozen:
                flat = torch.cat([self.frozen[name][s] for s in sequences])
                setattr(batch, into, collator.spread(flat, lengths))
        return batch

    # -- steps ------------------------------------------------------------------------------------------------------

    def steps(self, first: int) -> Iterator[tuple[int, list[list[Example]]]]:
        """Yield the steps of all epochs from the first not yet done, with this process's micro-batches."""
        for step in range(first, self.total_steps):
            yield step, self._micro(step)

    def _chosen(self, step: int) -> list[int]:
        epoch, place = divmod(step, self.steps_per_epoch)
        order = generator(self.fit.seed, "order", self.number, epoch).permutation(len(self.groups))
        size = self.fit.schedule.batch_size
        return [int(i) for i in order[place * size : (place + 1) * size]]

    def _micro(self, step: int) -> list[list[Example]]:
        accelerator, backbone = self.fit.backbone.accelerator, self.fit.backbone
        mine = self._chosen(step)[accelerator.process_index :: accelerator.num_processes]
        groups = [[self.items[i] for i in self.groups[g]] for g in mine]
        cut = micro_batches([sequences_of(g) for g in groups], backbone.config.tokens_per_batch, backbone.form)
        return [[example for g in part for example in groups[g]] for part in cut]

    def divisor(self, step: int) -> float:
        """Return the rows or completion tokens of a step, over all processes: what its mean divides by."""
        rows = [self.items[i] for g in self._chosen(step) for i in self.groups[g]]
        if self.fit.loss.per == "row":
            return float(len(rows))
        key = next(iter(self.fit.loss.reads))
        return float(sum(len(s.completion) for row in rows for s in row.sequences[key]))

    def loss(self, part: list[Example]) -> tuple[Tensor, Mapping[str, Tensor], int]:
        """Return the loss and metrics of each row of a micro-batch, and the tokens computed."""
        backbone = self.fit.backbone
        sequences = sequences_of(part)
        packed = backbone.pack(sequences)
        collator = Collator(part, sequences, backbone.tokens)
        batch = self._batch(part, sequences)
        if self.fit.reads_scores:
            scores = backbone.scores(POLICY, packed)
            outputs = collator.pick(torch.cat([scores, scores.new_zeros(1)]))
        else:
            outputs = collator.spread(backbone.logps(POLICY, packed), packed.lengths)
        used = packed.tokens
        if "values" in self.fit.loss.needs:
            batch.values = collator.spread(backbone.values(VALUE, packed), packed.lengths)
            used += packed.tokens
        rows = torch.tensor([self._place[id(example)] for example in part])
        width = next(iter(batch.mask.values())).shape[-1]
        for name, value in self.prepared.items():
            chosen = value[rows].to(backbone.accelerator.device)
            batch.prepared[name] = chosen[..., :width] if chosen.dim() > 1 else chosen
        loss, metrics = self.fit.loss(outputs, batch)
        return loss, metrics, used


def _optimizer(parameters: list[Any], schedule: Schedule) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        parameters, lr=schedule.learning_rate, eps=schedule.adam_epsilon, weight_decay=schedule.weight_decay, fused=True
    )


def _factor(schedule: Schedule, step: int, total: int) -> float:
    """Return what the learning rate is multiplied by at a step (from 0); no step is wasted at a rate of 0."""
    warmup = schedule.warmup_ratio * total
    if step + 1 < warmup:
        return (step + 1) / warmup
    left = 1 - max(0.0, step - warmup) / max(1.0, total - warmup)
    if schedule.lr_scheduler_type == "linear":
        return left
    if schedule.lr_scheduler_type == "cosine":  # to a tenth, as InstructGPT and Llama 2 do
        return 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * (1 - left)))
    return 1.0


