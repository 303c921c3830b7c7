"""One online update side by side: sample, score with a neural reward model, step; against TRL's RLOOTrainer."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from alignarena.benchmarks.perf import theirs
from alignarena.benchmarks.perf.alternation import WARM_UP, Alternation, Turns
from alignarena.benchmarks.perf.bench import Bench
from alignarena.benchmarks.perf.entry import Entry, Equality, absolute, of_seconds
from alignarena.benchmarks.perf.online_sides import (
    online_loss,
    online_terms,
    opponent,
    stored_reward_model,
    their_score,
)
from alignarena.benchmarks.perf.ours import OurSide, never_ending, release_memory
from alignarena.benchmarks.perf.replay import replayed
from alignarena.benchmarks.perf.terms import SEED, Settings, Terms
from alignarena.benchmarks.perf.trial import Trial, fastest, step_seconds
from alignarena.benchmarks.perf.work import Comparison, our_rows
from alignarena.core.seeds import generator
from alignarena.harness.backbone import Backbone
from alignarena.methods.parts.experience import Rollouts, ScoredBy


def online_update(bench: Bench, use_peft: bool) -> Entry:
    """Time whole updates of both sides by turns, on the same prompts in the same order."""
    sizes = bench.sizes
    size, n, length = sizes.online_prompts, sizes.n, sizes.online_tokens
    terms = online_terms(bench, use_peft, size, WARM_UP + bench.repeats, length)
    prompts = bench.prompts(size * terms.steps)
    settings, tried = _tried(bench)
    turns, sampled = _turns(terms, settings, prompts, bench)
    counted = _in_our_order(prompts)[WARM_UP * size :]
    return of_seconds(
        *turns.counted, name="online_update", opponent="TRL 1.16 RLOOTrainer", unit="useful tokens/s",
        work=f"{bench.dialogues.label}, {size} prompts x {n} x {length} new tokens, {terms.training}",
        amount=sum(len(one.prompt) for one in counted) + size * n * length * bench.repeats,
        equality=[_same_length(turns, sampled / (size * n * terms.steps)), *replayed(bench, use_peft)],
        settings=settings, tried=tried, precision=terms.precision,
    )  # fmt: skip


def _turns(terms: Terms, settings: Settings, prompts: Sequence[Comparison], bench: Bench) -> tuple[Turns, float]:
    """Return the turns and the tokens that our side sampled."""
    release_memory()
    n = bench.sizes.n
    backbone = Backbone(terms.config)
    with tempfile.TemporaryDirectory(dir=bench.folder) as name, never_ending(backbone):
        folder = Path(name)
        reward_model, head = stored_reward_model(backbone, folder / "reward-model")
        rows, feedback = our_rows(prompts, backbone.tokens), ScoredBy(reward_model)
        rollouts = Rollouts(rows, feedback, terms.steps, terms.batch_size, n)
        score = their_score(terms, settings, head, prompts, backbone.tokens)
        trainer = opponent(terms, settings, _in_our_order(prompts), folder, n, score, backbone)
        with OurSide(backbone, rollouts, online_loss(n), terms, folder) as ours:
            alternation = Alternation(ours.step)
            theirs.quiet(trainer, alternation).train()
        return alternation.turns, ours.meter.ledger.sampled_tokens


def _in_our_order(prompts: Sequence[Comparison]) -> list[Comparison]:
    """Return prompts as `Rollouts` takes them when each is used once."""
    return [prompts[int(i)] for i in generator(SEED, "rollout order", 0).permutation(len(prompts))]


def _same_length(turns: Turns, ours: float) -> Equality:
    lengths = [float(line["completions/mean_length"]) for line in turns.their_lines]
    return absolute("new tokens of a completion", [ours], [sum(lengths) / len(lengths)], 0.0)


def _tried(bench: Bench) -> Trial:
    """Try their settings on half a batch: an update takes long."""
    sizes = bench.sizes
    count = max(1, sizes.online_prompts // 2)
    terms = online_terms(bench, False, count, 1, sizes.online_tokens)
    prompts = bench.prompts(count)

    def seconds(settings: Settings) -> float:
        score = their_score(terms, settings, torch.zeros(1), prompts, bench.tokens)
        with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
            return step_seconds(theirs.online(terms, settings, prompts, Path(folder), sizes.n, score))

    changes: list[dict[str, Any]] = [{"attn_implementation": "eager"}, {"gradient_accumulation_steps": sizes.n}]
    return fastest(bench, "online", seconds, changes)
