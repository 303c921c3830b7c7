"""One phase of a fit: its rows with their frozen passes, cut into steps and micro-batches."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from accelerate.utils import gather_object
from torch import Tensor

from alignarena.core.contract import Batch
from alignarena.core.seeds import generator
from alignarena.harness.batches import Collator, Example, grouped, sequences_of
from alignarena.harness.packing import micro_batches
from alignarena.harness.passes import Output, Part, Table, charge, computed, everywhere

if TYPE_CHECKING:
    from alignarena.harness.backbone import Backbone
    from alignarena.harness.trainer import Fit

POLICY, VALUE = "training-policy", "training-value"


class MicroBatch:
    """Examples that one forward and backward pass takes."""

    def __init__(self, items: list[Example], backbone: Backbone, reused: bool) -> None:
        self.part = Part(backbone, sequences_of(items), reused)
        self.collator = Collator(items, self.part.sequences, backbone.tokens)
        self.ahead: dict[Output, Tensor] = {}  # outputs for the next step, with their graphs


class Phase:
    """The rows of one phase with their frozen passes, cut into steps and micro-batches."""

    def __init__(self, fit: Fit, number: int, items: list[Example]) -> None:
        self.fit, self.number, self.items = fit, number, items
        self.groups = grouped(items)
        self._sequences = [sequences_of([items[i] for i in group]) for group in self.groups]
        self.steps_per_epoch = math.ceil(len(self.groups) / fit.schedule.batch_size)
        self.total_steps = self.steps_per_epoch * fit.schedule.num_train_epochs
        self._one_step = self.steps_per_epoch == 1  # so all epochs read the same
        self._kept: list[MicroBatch] | None = None
        self.frozen: dict[str, Table] = {}
        self.prepared: dict[str, Tensor] = {}
        self._place = {id(example): i for i, example in enumerate(items)}

    # -- what is fixed while the phase lasts ------------------------------------------------------------------------

    @torch.no_grad()
    def freeze(self, shared: bool, state: dict[str, float]) -> None:
        """Run the passes the loss needs and let it prepare.

        Args:
            shared: Whether other fits may read the same rows.
            state: The loss's controllers, which it may move.
        """
        fit = self.fit
        needs = fit.loss.needs & {"reference", "old", "values"}
        # laid out as the first epoch will be, so that its first ratio is 1 to the last bit
        wanted = self.steps_per_epoch if needs or self._one_step else 0
        micro = [part for step in range(wanted) for part in self.micro(step)]
        if "reference" in needs:
            # before its first step the policy is its reference, and in the same precision: full fine-tuning trains in
            # fp32 what it keeps in bf16, and DPO's loss would not start at log 2
            variant = fit.start if fit.log else POLICY
            self.frozen["reference"] = fit.references.logps(variant, [m.part for m in micro], fit.meter, shared)
        passes: dict[str, tuple[Output, str]] = {"old": ("logps", POLICY), "values": ("values", VALUE)}
        for name, (output, variant) in passes.items():
            if name in needs:
                self.frozen[name] = self._before_the_first_step(output, variant, micro)
        # one micro-batch may hold all rows, in their order: what collates it need not be made again
        everything = next((part.collator for part in micro if part.collator.items == self.items), None)
        everything = everything or Collator(self.items, sequences_of(self.items), fit.backbone.tokens)
        prepared = fit.loss.prepare(self._batch(everything), state)
        self.prepared = {name: value.cpu() for name, value in prepared.items()}

    def _before_the_first_step(self, output: Output, variant: str, micro: list[MicroBatch]) -> Table:
        """Compute an output of what is trained; where the first step reads the same, that pass is its forward pass.

        It is charged all the same: what a method costs must not depend on how many micro-batches a step takes.
        """
        backbone = self.fit.backbone
        if not self._one_step or set(gather_object([len(micro)])) != {1}:
            return computed(backbone, output, variant, [m.part for m in micro], self.fit.meter)
        (only,) = micro
        packed = only.part.packed()
        with torch.enable_grad():
            only.ahead[output] = getattr(backbone, output)(variant, packed)
        charge(backbone, self.fit.meter, packed.tokens)
        return everywhere(backbone, only.part.table(output, only.ahead[output].detach()))

    def _batch(self, collator: Collator) -> Batch:
        batch = collator.batch(self.fit.backbone.accelerator.device)
        for name, into in (("reference", "reference"), ("old", "old"), ("values", "old_values")):
            if name in self.frozen:
                flat = torch.cat([self.frozen[name][s] for s in collator.sequences])
                setattr(batch, into, collator.spread(flat))
        return batch

    # -- steps ------------------------------------------------------------------------------------------------------

    def steps(self, first: int) -> Iterator[tuple[int, list[MicroBatch]]]:
        """Yield the steps of all epochs from the first not yet done, with this process's micro-batches."""
        for step in range(first, self.total_steps):
            yield step, self.micro(step)

    def _chosen(self, step: int) -> list[int]:
        epoch, place = divmod(step, self.steps_per_epoch)
        order = generator(self.fit.seed, "order", self.number, epoch).permutation(len(self.groups))
        size = self.fit.schedule.batch_size
        return [int(i) for i in order[place * size : (place + 1) * size]]

    def ends_epoch(self, step: int) -> bool:
        """Tell whether an epoch is over after a step."""
        return (step + 1) % self.steps_per_epoch == 0

    def micro(self, step: int) -> list[MicroBatch]:
        """Return this process's micro-batches of a step."""
        if self._kept is not None:
            return self._kept
        accelerator, backbone = self.fit.backbone.accelerator, self.fit.backbone
        mine = sorted(self._chosen(step))[accelerator.process_index :: accelerator.num_processes]
        cut = micro_batches([self._sequences[g] for g in mine], backbone.config.tokens_per_batch, backbone.form)
        made = [MicroBatch([self.items[i] for g in part for i in self.groups[mine[g]]], backbone, self._one_step)
                for part in cut]  # fmt: skip
        if self._one_step:
            self._kept = made
        return made

    def divisor(self, step: int) -> float:
        """Return the rows or completion tokens of a step, over all processes: what its mean divides by."""
        rows = [self.items[i] for g in self._chosen(step) for i in self.groups[g]]
        if self.fit.loss.per == "row":
            return float(len(rows))
        key = next(iter(self.fit.loss.reads))
        return float(sum(row.tokens(key) for row in rows))

    def means(self, micro: list[MicroBatch], divisor: float, backward: bool) -> tuple[dict[str, float], int]:
        """Return the mean loss and metrics over the micro-batches of all processes, and the tokens computed.

        Args:
            micro: This process's.
            divisor: What the means divide by, over all processes.
            backward: Whether each micro-batch adds its gradients to the parameters' (this process's alone).
        """
        sums: dict[str, float] = defaultdict(float)
        tokens = 0
        for part in micro:
            loss, metrics, used = self.loss(part)
            mean = loss.sum() / divisor
            if backward:
                mean.backward()  # type: ignore[no-untyped-call]
            tokens += used
            sums["loss"] += mean.item()
            for name, value in metrics.items():
                sums[name] += value.sum().item() / divisor
        return self._over_processes(sums, tokens)

    def _over_processes(self, sums: dict[str, float], tokens: int) -> tuple[dict[str, float], int]:
        if self.fit.backbone.accelerator.num_processes == 1:
            return sums, tokens
        total: dict[str, float] = defaultdict(float)
        counted = 0
        for other_sums, other_tokens in gather_object([(dict(sums), tokens)]):
            for name, value in other_sums.items():
                total[name] += value
            counted += other_tokens
        return total, counted

    def loss(self, micro: MicroBatch) -> tuple[Tensor, Mapping[str, Tensor], int]:
        """Return the loss and metrics of each row of a micro-batch, and the tokens computed."""
        collator = micro.collator
        batch = self._batch(collator)
        if self.fit.reads_scores:
            scores = self._output("scores", POLICY, micro)
            outputs = collator.pick(torch.cat([scores, scores.new_zeros(1)]))
        else:
            outputs = collator.spread(self._output("logps", POLICY, micro))
        passes = 1
        if "values" in self.fit.loss.needs:
            batch.values = collator.spread(self._output("values", VALUE, micro))
            passes = 2
        rows = torch.tensor([self._place[id(example)] for example in collator.items])
        width = next(iter(batch.mask.values())).shape[-1]
        for name, value in self.prepared.items():
            chosen = value[rows].to(self.fit.backbone.accelerator.device)
            batch.prepared[name] = chosen[..., :width] if chosen.dim() > 1 else chosen
        loss, metrics = self.fit.loss(outputs, batch)
        return loss, metrics, passes * micro.part.packed().tokens

    def _output(self, output: Output, variant: str, micro: MicroBatch) -> Tensor:
        """Return an output of what is trained, with its graph."""
        if output in micro.ahead:
            return micro.ahead.pop(output)
        found: Tensor = getattr(self.fit.backbone, output)(variant, micro.part.packed())
        return found
