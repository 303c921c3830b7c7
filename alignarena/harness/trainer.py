"""One training loop for every loss: it knows rows, log-probs, scores and values, and no method's name.

A phase draws rows, runs the frozen passes (reference, old, values) once, lets the loss prepare what its epochs share,
and takes optimiser steps. Gradients of the adapters are summed over processes; the frozen base is never synchronised.
Where the schedule holds prompts out of a fixed set, the epoch of least loss on them is what a fit ends with; the start
is epoch 0.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from alignarena.core.contract import Experience, Loss, Policy, Schedule
from alignarena.core.degenerate import ROWS
from alignarena.core.errors import BudgetUsedUp, RunFailed
from alignarena.core.feedback import Standardised
from alignarena.core.records import Ledger
from alignarena.core.seeds import derive
from alignarena.harness.backbone import Backbone
from alignarena.harness.batches import examples
from alignarena.harness.checkpoint import Checkpoint, Snapshot
from alignarena.harness.meter import Meter
from alignarena.harness.passes import References
from alignarena.harness.phase import POLICY, VALUE, MicroBatch, Phase
from alignarena.harness.progress import Stage
from alignarena.harness.validation import hold_out, validation_loss
from alignarena.harness.weights import BASE

__all__ = ["POLICY", "Fit", "rate_factor"]


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
    best: Snapshot | None = None  # the policy of least loss on the prompts held out, where there are any
    least: float = math.inf

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
                if self.best is not None:
                    self.best.put(self.backbone, POLICY)
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
            if name not in self.backbone.heads:
                head.weight.zero_()  # no reward model to start from: every value is 0
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
        self.best, self.least = progress["best"], progress["least"]
        self.meter.restore(Ledger.from_dict(progress["ledger"]), progress["met"])
        self.stage.advance(progress["phase"] + progress["share"])
        return progress["phase"], progress["step"]

    def _phases(
        self, parameters: list[Any], optimizer: torch.optim.Optimizer, checkpoint: Checkpoint, done: tuple[int, int]
    ) -> Iterator[dict[str, Any]]:
        for number in range(done[0], self.experience.phases):
            if not self.budget_left():
                raise BudgetUsedUp
            first = done[1] if number == done[0] else 0
            phase, validation, fixed = self._phase(number, again=first > 0)
            # rows that cost work, and old log-probs and values, come from the policy at the start of the phase
            repeatable = fixed and not self.loss.needs & {"old", "values"}
            if validation is not None and not first:
                self._validate(validation)
            for step, micro in phase.steps(first):
                if not self.budget_left():
                    raise BudgetUsedUp
                self._step(phase, step, micro, parameters, optimizer)
                if validation is not None and phase.ends_epoch(step):
                    self.log[-1]["validation_loss"] = self._validate(validation)
                at_end = step + 1 == phase.total_steps
                if checkpoint.due and (at_end or repeatable):
                    self._save(checkpoint, *((number + 1, 0) if at_end else (number, step + 1)), phase.total_steps)
                yield self.log[-1]

    def _phase(self, number: int, again: bool) -> tuple[Phase, Phase | None, bool]:
        """Draw the rows of a phase and run its frozen passes; ``again``: they were counted before a kill.

        Returns:
            What is trained on, what is held out of it, and whether the rows cost no work: they are a fixed set.
        """
        charged, met, state = self.meter.ledger, Counter(self.meter.met), dict(self.state)
        rows = self.experience.rows(number, self.live, self.phase_lab)
        fixed = self.meter.ledger == charged
        items, dropped = examples(rows, self.loss, self.backbone.tokens)
        whole = fixed and self.experience.phases == 1  # a stream's rows are read once: nothing of them is kept
        share = self.schedule.validation_share if whole else 0.0
        trained, held = hold_out(items, share, self.seed)
        phase, validation = Phase(self, number, trained), Phase(self, number, held) if held else None
        phase.freeze(whole, self.state)
        if validation is not None:
            validation.freeze(whole, dict(state))
        if again:
            self.state = state
            self.meter.restore(charged, met)
        else:
            self.dropped.update(dropped)
            self.meter.met[ROWS] += len(rows)
        return phase, validation, fixed

    def _validate(self, validation: Phase) -> float:
        """Return the loss on the prompts held out; keep the policy if it is the best so far."""
        loss = validation_loss(validation)
        self._must_be_finite(loss, f"validation loss is {loss} after {len(self.log)} steps")
        if self.best is None or loss < self.least:
            self.best, self.least = Snapshot.of(self.backbone, POLICY, copy=True), loss
        return loss

    def _must_be_finite(self, loss: float, what: str) -> None:
        if not math.isfinite(loss):
            raise RunFailed(f"{type(self.loss).__name__}: the {what}; lower the learning_rate")

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
                "ledger": self.meter.so_far.to_dict(),
                "met": dict(self.meter.met),
                "best": self.best,
                "least": self.least,
            }
        )

    def _step(
        self, phase: Phase, step: int, micro: list[MicroBatch], parameters: list[Any], optimizer: Any
    ) -> None:
        steps = self.experience.phases * phase.total_steps
        rate = self.schedule.learning_rate * rate_factor(self.schedule, phase.number * phase.total_steps + step, steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
        sums, tokens = phase.means(micro, phase.divisor(step), backward=True)
        self._must_be_finite(sums["loss"], f"loss is {sums['loss']} at phase {phase.number}, step {step}")
        self._reduce(parameters)
        # each model by its own norm: a value model that is far off must not shrink the policy's step
        norms = {name: torch.nn.utils.clip_grad_norm_(self.backbone.parameters_of(name), self.schedule.max_grad_norm)
                 for name in sorted(self.backbone.trainable)}  # fmt: skip
        optimizer.step()
        per_token = self.backbone.weights.flops_per_token * self.backbone.parameters
        self.meter.add(trained_tokens=tokens, optimizer_steps=1, flops=per_token * tokens)
        self.stage.advance(1 / phase.total_steps, tokens)
        line = {"phase": phase.number, "step": len(self.log), **sums, "learning_rate": rate}
        self.log.append({**line, "grad_norm": float(norms[POLICY]), "tokens": tokens, **self.state})

    def _reduce(self, parameters: list[Any]) -> None:
        """Sum gradients over all processes."""
        accelerator = self.backbone.accelerator
        if accelerator.num_processes == 1:
            return
        for parameter in parameters:
            grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = accelerator.reduce(grad, "sum")


def _optimizer(parameters: list[Any], schedule: Schedule) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        parameters, lr=schedule.learning_rate, eps=schedule.adam_epsilon, weight_decay=schedule.weight_decay, fused=True
    )


def rate_factor(schedule: Schedule, step: int, total: int) -> float:
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
