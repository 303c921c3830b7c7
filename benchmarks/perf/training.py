"""Training steps side by side: DPO, SFT and the K-wise reward model against TRL's trainers."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from alignarena.benchmarks.perf import theirs
from alignarena.benchmarks.perf.alternation import WARM_UP, Alternation, Turns
from alignarena.benchmarks.perf.bench import Bench
from alignarena.benchmarks.perf.entry import Entry, Equality, absolute, of_seconds, relative
from alignarena.benchmarks.perf.ours import OurSide, first_adapter, first_head, order, release_memory
from alignarena.benchmarks.perf.terms import Settings, Terms
from alignarena.benchmarks.perf.trial import Trial, fastest, step_seconds
from alignarena.benchmarks.perf.work import Comparison, Work, our_rows
from alignarena.core.contract import Loss
from alignarena.harness.backbone import Backbone
from alignarena.methods.parts.experience import Fixed
from alignarena.methods.parts.losses import DPOLoss, SFTLoss
from alignarena.methods.parts.reward_losses import KWiseRewardLoss

MakeTrainer = Callable[[Terms, Settings, Sequence[Comparison], Path], Any]


@dataclass(frozen=True)
class Duel:
    """One loss, trained by both sides on the same rows in the same order."""

    name: str
    opponent: str
    trainer: str  # settings are tried once for each of these
    loss: Loss
    make: MakeTrainer
    completions: int  # of each comparison, how many are used
    work: Literal["dialogues", "quickstart"] = "dialogues"
    counts_reference: bool = False  # whether a step pays its share of our pass over the reference model
    reads_scores: bool = False
    tolerance: float = 0.05  # of a loss under bf16, absolute: log-probs summed over a completion are rounded most

    def batch_size(self, bench: Bench) -> int:
        """Return the prompts of an optimiser step."""
        return bench.sizes.rankings if self.work == "quickstart" else bench.sizes.pairs

    def source(self, bench: Bench) -> Work:
        """Return where its rows come from."""
        return bench.quickstart if self.work == "quickstart" else bench.dialogues

    def turns(self, terms: Terms, settings: Settings, data: Sequence[Comparison], bench: Bench) -> tuple[Turns, float]:
        """Train both sides step by step; returns also the seconds of our pass over the reference model."""
        release_memory()
        cut = [one.cut(self.completions) for one in data]
        backbone = Backbone(terms.config)
        rows = Fixed(our_rows(cut, backbone.tokens))
        with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
            trainer = self.opponent_on(terms, settings, [cut[i] for i in order(len(cut))], Path(folder), backbone)
            with OurSide(backbone, rows, self.loss, terms, Path(folder), self.reads_scores) as ours:
                alternation = Alternation(ours.step)
                theirs.quiet(trainer, alternation).train()
            return alternation.turns, ours.frozen_seconds

    def opponent_on(
        self, terms: Terms, settings: Settings, data: Sequence[Comparison], folder: Path, backbone: Backbone
    ) -> Any:
        """Return their trainer, starting from the weights that ours starts from."""
        trainer = self.make(terms, settings, data, folder)
        if terms.use_peft:
            theirs.set_adapter(trainer, first_adapter(backbone))
        if self.reads_scores:
            theirs.set_head(trainer.model, first_head(backbone))
        return trainer

    def run(self, bench: Bench, use_peft: bool) -> Entry:
        """Time the steps of both sides by turns and compare their losses."""
        batch, work = self.batch_size(bench), self.source(bench)
        terms = bench.terms(use_peft, batch, WARM_UP + bench.repeats)
        data = work.take(batch * terms.steps)
        settings, tried = self.tried(bench)
        turns, frozen = self.turns(terms, settings, data, bench)
        ours, opposite = turns.counted
        share = frozen / terms.steps if self.counts_reference else 0.0
        counted = [data[i].cut(self.completions) for i in order(len(data))[WARM_UP * batch :]]
        return of_seconds(
            [seconds + share for seconds in ours], opposite, name=self.name, opponent=self.opponent,
            work=f"{work.label}, {batch} prompts a step, {terms.training}", unit="useful tokens/s",
            amount=sum(one.tokens for one in counted),
            equality=[self._same_losses(turns, terms), *self.checked(bench, use_peft)],
            reference_seconds_a_step=share, settings=settings, tried=tried, precision=terms.precision,
            our_losses=_losses(turns.our_lines), their_losses=_losses(turns.their_lines),
        )  # fmt: skip

    def tried(self, bench: Bench) -> Trial:
        """Return their fastest settings: each costs one step, in full fine-tuning."""
        batch = self.batch_size(bench)
        terms = bench.terms(False, batch, 1)
        data = [one.cut(self.completions) for one in self.source(bench).take(batch)]
        changes: list[dict[str, Any]] = [
            {"gradient_checkpointing": True},
            {"attn_implementation": "eager"},
            {"gradient_accumulation_steps": batch},
        ]
        if self.trainer == "sft":
            changes.append({"gradient_accumulation_steps": 1, "padding_free": True})

        def seconds(settings: Settings) -> float:
            with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
                return step_seconds(self.make(terms, settings, data, Path(folder)))

        return fastest(bench, self.trainer, seconds, changes)

    def checked(self, bench: Bench, use_peft: bool) -> list[Equality]:
        """Compare the losses of two steps in fp32, on the shortest rows."""
        size = bench.sizes.check_rows
        terms = bench.terms(use_peft, size, 2, "fp32")
        turns, _ = self.turns(terms, Settings(), self.source(bench).shortest[: 2 * size], bench)
        ours, opposite = _losses(turns.our_lines), _losses(turns.their_lines)
        return [
            relative("loss in fp32 at step 0, relative", ours[:1], opposite[:1], 1e-4),
            relative("loss in fp32 after one step, relative", ours[1:], opposite[1:], 1e-3),
        ]

    def _same_losses(self, turns: Turns, terms: Terms) -> Equality:
        tolerance = self.tolerance if terms.precision == "bf16" else 1e-3
        what = f"loss of every step in {terms.precision}, absolute"
        return absolute(what, _losses(turns.our_lines), _losses(turns.their_lines), tolerance)


def _losses(lines: Sequence[dict[str, Any]]) -> list[float]:
    return [float(line["loss"]) for line in lines]


DUELS = (
    Duel(
        "dpo_live", "TRL 1.16 DPOTrainer, live reference", "dpo", DPOLoss(), theirs.dpo, 2, counts_reference=True,
        tolerance=0.1,
    ),
    Duel(
        "dpo_precomputed", "TRL 1.16 DPOTrainer, precomputed reference", "dpo", DPOLoss(),
        partial(theirs.dpo, precomputed=True), 2, tolerance=0.1,
    ),
    Duel("sft", "TRL 1.16 SFTTrainer", "sft", SFTLoss(), theirs.sft, 1),
    Duel(
        "reward_model_4wise", "TRL 1.16 RewardTrainer on all pairs", "reward", KWiseRewardLoss(), theirs.reward_model,
        4, work="quickstart", reads_scores=True,
    ),
)  # fmt: skip
