"""Whether both sides' online updates are the same algorithm, though they draw different samples.

In fp32 our side takes the completions that TRL's trainer drew, scores them itself, and must report the same scores, KL
and gradient norms: of the first update, and of the second, whose policy the first one has moved.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset

from alignarena.benchmarks.perf import theirs
from alignarena.benchmarks.perf.alternation import Alternation, Lines
from alignarena.benchmarks.perf.bench import Bench
from alignarena.benchmarks.perf.entry import Equality, absolute, relative
from alignarena.benchmarks.perf.online_sides import (
    online_loss,
    online_terms,
    opponent,
    stored_reward_model,
    their_score,
)
from alignarena.benchmarks.perf.ours import OurSide, never_ending, release_memory
from alignarena.benchmarks.perf.terms import Settings
from alignarena.core.contract import Lab, Policy, Rows, Scorer
from alignarena.harness.backbone import Backbone
from alignarena.harness.tokens import Tokens

UPDATES, LENGTH = 2, 8  # new tokens a completion


@dataclass
class Replay:
    """Rollouts that someone else drew, scored by our side."""

    scorer: Scorer
    phases: int
    drawn: list[Rows] = field(default_factory=list)
    value_start: None = None

    def rows(self, phase: int, policy: Policy, lab: Lab) -> Rows:
        """Return the rollouts of a phase with their scores."""
        return lab.score(self.drawn[phase], self.scorer)


def replayed(bench: Bench, use_peft: bool) -> list[Equality]:
    """Take two updates with both sides on the completions of one."""
    release_memory()
    n, size = bench.sizes.n, bench.sizes.check_rows
    terms = online_terms(bench, use_peft, size, UPDATES, min(LENGTH, bench.sizes.online_tokens), "fp32")
    prompts = sorted(bench.prompts(4 * size), key=lambda one: len(one.prompt))[: size * UPDATES]
    backbone = Backbone(terms.config)
    with tempfile.TemporaryDirectory(dir=bench.folder) as name, never_ending(backbone):
        folder = Path(name)
        reward_model, head = stored_reward_model(backbone, folder / "reward-model")
        replay = Replay(reward_model, UPDATES)
        score = their_score(terms, Settings(), head, prompts, backbone.tokens)
        trainer = opponent(terms, Settings(), prompts, folder, n, score, backbone)
        _record(trainer, replay, backbone.tokens, n)
        with OurSide(backbone, replay, online_loss(n), terms, folder) as ours:
            alternation = Alternation(ours.step, always_second=True)
            theirs.quiet(trainer, alternation).train()
    return _agreement(alternation.turns.our_lines, alternation.turns.their_lines)


def _agreement(ours: Lines, opposite: Lines) -> list[Equality]:
    def series(name: str, lines: Lines) -> list[float]:
        return [float(line[name]) for line in lines]

    return [
        absolute("scores of replayed rollouts in fp32", series("score", ours), series("reward", opposite), 1e-3),
        absolute("KL a token in fp32, nats", series("kl", ours), series("kl", opposite), 1e-4),
        relative("gradient norms in fp32, relative", series("grad_norm", ours), series("grad_norm", opposite), 1e-3),
    ]


def _record(trainer: Any, replay: Replay, tokens: Tokens, n: int) -> None:
    """Hand every batch of rollouts that a trainer draws to our side as well."""
    draw = trainer._generate_and_score_completions

    def drawn(inputs: list[dict[str, Any]]) -> Any:
        batch = draw(inputs)
        padded = zip(batch["prompt_ids"], batch["prompt_mask"], strict=True)
        prompts = [ids[mask.bool()].tolist() for ids, mask in padded]
        replay.drawn.append(_sampled_rows(prompts, batch["completion_ids"].tolist(), tokens, n))
        return batch

    trainer._generate_and_score_completions = drawn


def _sampled_rows(prompts: Sequence[list[int]], completions: Sequence[list[int]], tokens: Tokens, n: int) -> Dataset:
    decode = tokens.tokenizer.decode
    return Dataset.from_list(
        [
            {"prompt_id": str(i // n), "prompt": decode(prompt), "prompt_ids": prompt, "completion": decode(ids),
             "completion_ids": ids}
            for i, (prompt, ids) in enumerate(zip(prompts, completions, strict=True))
        ]
    )  # fmt: skip
