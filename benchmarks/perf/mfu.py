"""How much of the machine a DPO step uses: model operations a second over the best matrix product's."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from transformers import AutoModelForCausalLM

from alignarena.benchmarks.perf import theirs
from alignarena.benchmarks.perf.alternation import WARM_UP
from alignarena.benchmarks.perf.bench import Bench
from alignarena.benchmarks.perf.entry import Entry
from alignarena.benchmarks.perf.flops import ModelShape, dpo_step, product_rate, utilisation
from alignarena.benchmarks.perf.ours import OurSide, order
from alignarena.benchmarks.perf.terms import Settings
from alignarena.benchmarks.perf.work import our_rows
from alignarena.harness.backbone import Backbone
from alignarena.harness.trainer import POLICY
from alignarena.methods.parts.experience import Fixed
from alignarena.methods.parts.losses import DPOLoss


def model_utilisation(bench: Bench, use_peft: bool) -> Entry:
    """Time our DPO steps, its pass over the reference model included, between two timings of the products."""
    batch = bench.sizes.pairs
    terms = bench.terms(use_peft, batch, WARM_UP + bench.repeats)
    data = [one.cut(2) for one in bench.dialogues.take(batch * terms.steps)]
    dtype = theirs.compute_type(terms)
    backbone = Backbone(terms.config)
    shape = ModelShape.of(theirs.load(AutoModelForCausalLM, terms, Settings(), dtype))
    before = product_rate(bench.sizes.matrix, dtype)
    seconds = []
    with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
        rows = Fixed(our_rows(data, backbone.tokens))
        with OurSide(backbone, rows, DPOLoss(), terms, Path(folder)) as ours:
            for _ in range(terms.steps):
                start = time.perf_counter()
                ours.step()
                seconds.append(time.perf_counter() - start)
            adapter = sum(p.numel() for p in backbone.parameters_of(POLICY)) if use_peft else 0
    rate = max(before, product_rate(bench.sizes.matrix, dtype))
    share = ours.frozen_seconds / terms.steps
    ordered = [data[i] for i in order(len(data))]
    batches = [ordered[i : i + batch] for i in range(WARM_UP * batch, len(ordered), batch)]
    operations = [dpo_step(shape, one, adapter) for one in batches]
    counted = [taken + share for taken in seconds[WARM_UP:]]
    median, low, high = utilisation(operations, counted, rate)
    return Entry(
        name="mfu", opponent=f"{terms.precision} matrix product", ratio=median, ratio_low=low, ratio_high=high,
        ours=sum(operations) / sum(counted) / 1e9, theirs=rate / 1e9, unit="GFLOP/s",
        work=f"{bench.dialogues.label}, DPO step of {batch} pairs with its reference model, {terms.training}",
        repeats=len(counted),
        details={"our_seconds": counted, "operations": operations, "reference_seconds_a_step": share,
                 "rate_before_gflops": before / 1e9, "matrices": shape.matrices, "adapter_weights": adapter},
    )  # fmt: skip
