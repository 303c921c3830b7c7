"""What all comparisons of one run share: the model, the work, how often each is repeated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from alignarena.benchmarks.perf.ours import stored_start
from alignarena.benchmarks.perf.terms import Precision, Terms, best_precision
from alignarena.benchmarks.perf.work import MAX_LENGTH, Comparison, Work, dialogues, quickstart
from alignarena.core.model import ModelConfig
from alignarena.harness.models import load_pretrained, resolve_model
from alignarena.harness.tokens import Tokens


@dataclass(frozen=True)
class Sizes:
    """How much work a repeat is."""

    pairs: int = 4  # dialogues an optimiser step
    rankings: int = 8  # quickstart prompts an optimiser step of a reward model: the quickstart's own batch
    rollout_prompts: int = 24  # of one PPO update of the quickstart
    rollout_tokens: int = 32  # new ones a completion
    online_prompts: int = 4
    online_tokens: int = 24
    n: int = 4  # completions a prompt
    max_length: int = MAX_LENGTH  # tokens of a prompt and one completion
    max_prompt: int = 256  # tokens of a prompt to be sampled from
    check_rows: int = 2  # of a step in fp32
    full_rate: float = 1e-5  # learning rates high enough that losses move within a few steps
    lora_rate: float = 3e-4
    matrix: int = 2048  # side of the product that MFU is measured against


@dataclass
class Bench:
    """One run."""

    model: str
    repeats: int
    folder: Path  # temporary
    dialogues: Work
    quickstart: Work
    tokens: Tokens
    sizes: Sizes = Sizes()
    precision: Precision = field(default_factory=best_precision)
    chosen: dict[str, Any] = field(default_factory=dict)  # TRL's settings by trainer, once tried
    _starts: dict[str, str] = field(default_factory=dict)

    def start(self, precision: Precision) -> str:
        """Return the folder of the model in a precision, for both sides."""
        if precision not in self._starts:
            self._starts[precision] = stored_start(self.model, precision, self.folder)
        return self._starts[precision]

    def terms(
        self, use_peft: bool, batch_size: int, steps: int, precision: Precision | None = None,
        max_new_tokens: int | None = None,
    ) -> Terms:  # fmt: skip
        """Return the terms of a comparison, in the precision of this run unless told another."""
        precision = precision or self.precision
        return Terms(
            model=self.start(precision), use_peft=use_peft, precision=precision, steps=steps, batch_size=batch_size,
            learning_rate=self.sizes.lora_rate if use_peft else self.sizes.full_rate,
            max_prompt_tokens=self.sizes.max_length, max_new_tokens=max_new_tokens or self.sizes.max_length,
        )  # fmt: skip

    def prompts(self, count: int) -> Sequence[Comparison]:
        """Return the first dialogues whose prompt is short enough to sample from and the same after decoding.

        TRL's online trainers take prompts as text.
        """
        tokenizer = self.tokens.tokenizer
        fitting = [
            one
            for one in self.dialogues.comparisons
            if len(one.prompt) <= self.sizes.max_prompt
            and tuple(tokenizer(tokenizer.decode(one.prompt))["input_ids"]) == one.prompt
        ]
        return Work(tuple(fitting), self.dialogues.label).take(count)


def new_bench(model: str, repeats: int, folder: Path, sizes: Sizes = Sizes()) -> Bench:
    """Return a run on real dialogues where they are found, else on invented ones of the same lengths."""
    tokens = Tokens(load_pretrained(AutoTokenizer, resolve_model(model)), ModelConfig(model_name_or_path=model))
    enough = (repeats + 1) * max(sizes.pairs, sizes.rollout_prompts, sizes.online_prompts)
    return Bench(
        model=model,
        repeats=repeats,
        folder=folder,
        dialogues=dialogues(tokens, 4 * enough, sizes.max_length),
        quickstart=quickstart(tokens, (repeats + 1) * sizes.rankings, sizes.n),
        tokens=tokens,
        sizes=sizes,
    )
