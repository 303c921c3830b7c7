"""Cost against size: more rows of the same kind, and more completions a prompt. LoRA, quickstart prompts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from alignarena.benchmarks.perf.alternation import WARM_UP, take_turns
from alignarena.benchmarks.perf.bench import Bench
from alignarena.benchmarks.perf.rollouts import Generator, Way, draw, policy_of
from alignarena.benchmarks.perf.terms import Settings
from alignarena.benchmarks.perf.training import DUELS, Duel
from alignarena.benchmarks.perf.work import quickstart

FACTORS = (1, 4, 16)
COMPLETIONS = (2, 4, 8, 16)
_BY_NAME = {duel.name: duel for duel in DUELS}


def growth(bench: Bench) -> list[dict[str, Any]]:
    """Return seconds of both sides at every size: records of ``axis, what, size, ours, theirs, opponent, unit``."""
    return [*_rows(bench), *_reward_models(bench), *_rollouts(bench)]


def _rows(bench: Bench) -> Iterator[dict[str, Any]]:
    """Yield the time of whole fits of DPO over more and more pairs, the reference model's passes included."""
    duel, batch = _BY_NAME["dpo_live"], bench.sizes.pairs
    for factor in FACTORS:
        terms = bench.terms(True, batch, factor + WARM_UP)
        data = quickstart(bench.tokens, batch * terms.steps).comparisons
        turns, frozen = duel.turns(terms, Settings(), data, bench)
        ours, opposite = turns.counted
        # our pass over the reference model falls into the step that is not counted; theirs is live
        share = frozen * factor / terms.steps
        yield _record("rows", duel, batch * factor, sum(ours) + share, sum(opposite), "seconds a fit")


def _reward_models(bench: Bench) -> Iterator[dict[str, Any]]:
    """Yield the time of a step of the reward model on one ranking of more and more completions."""
    for n in COMPLETIONS:
        duel = replace(_BY_NAME["reward_model_4wise"], completions=n)
        terms = bench.terms(True, 1, WARM_UP + 1)
        turns, _ = duel.turns(terms, Settings(), quickstart(bench.tokens, terms.steps, n).comparisons, bench)
        (ours,), (opposite,) = turns.counted
        yield _record("completions", duel, n, ours, opposite, "seconds a step of one ranking")


def _rollouts(bench: Bench) -> Iterator[dict[str, Any]]:
    """Yield the time of drawing more and more completions of the same prompts."""
    length, count = bench.sizes.rollout_tokens, bench.sizes.rollout_prompts
    prompts = [one.prompt for one in quickstart(bench.tokens, count).comparisons]
    terms = bench.terms(True, count, 1, max_new_tokens=length)
    backbone, policy = policy_of(terms)
    for n in COMPLETIONS:
        generator = Generator(terms, Way(), backbone, n)
        turns = take_turns(partial(draw, backbone, policy, prompts, n, length), partial(generator, prompts, length), 1)
        (ours,), (opposite,) = turns.counted
        yield {"axis": "completions", "what": "rollouts", "size": n, "ours": ours, "theirs": opposite,
               "opponent": "transformers.generate", "unit": f"seconds for {count} prompts"}  # fmt: skip


def _record(axis: str, duel: Duel, size: int, ours: float, opposite: float, unit: str) -> dict[str, Any]:
    return {"axis": axis, "what": duel.name, "size": size, "ours": ours, "theirs": opposite,
            "opponent": duel.opponent, "unit": unit}  # fmt: skip
