"""The resolved suite: everything that is fixed in a comparison, as frozen dataclasses built from a YAML file."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from alignarena.benchmarks.datasets import DATASETS
from alignarena.benchmarks.splits import DataConfig
from alignarena.benchmarks.suite_file import SUITES, SuiteValues, read_suite_values
from alignarena.core import registry
from alignarena.core.config import build
from alignarena.core.contract import Method, Principle, Sampling, Schedule
from alignarena.core.digest import digest
from alignarena.core.errors import BadInput, nearest
from alignarena.core.model import ModelConfig
from alignarena.core.records import Budget
from alignarena.evaluators.constitution import check, read_constitution
from alignarena.methods.parts.reward_modelling import RewardModelling
from alignarena.results.stats import MARGIN

# What may differ between two runs that share a folder: more methods, seeds or evaluators only add to it.
# Where curves are sent changes nothing in them.
# Nor do threads make results incomparable: they add up in another order, which the last bits of a sum show.
_NOT_IN_DIGEST = ("name", "summary", "methods", "seeds", "evaluators", "threads", "report_to")
ReportTo = Literal["none", "trackio", "wandb", "tensorboard"]


@dataclass(frozen=True)
class FeedbackConfig:
    """Where preferences come from: an annotator who ranks samples of the SFT policy, or the pairs of the dataset."""

    annotator: Literal["simulated", "human", "exact"] = "simulated"  # exact: of an exact world, without end
    scorer: str = "gold"  # the hidden reward of a simulated annotator
    noise: float = 0.1  # its error, in the scorer's units; 0 ranks exactly
    n: int = 4  # completions it ranks for a prompt
    sampling: Sampling = field(default_factory=Sampling)
    phases: int = 300  # of an exact annotator: how often a fit gets fresh pairs
    pairs: int = 256  # and how many each time
    constitution: tuple[Principle, ...] = ()  # of AI feedback; in a file a name or path, too; none: the dataset's own

    def __post_init__(self) -> None:
        """Check the numbers and the constitution.

        Raises:
            BadInput: Nothing to compare, negative noise, or an empty principle.
        """
        for place, principle in enumerate(self.constitution):
            check(principle, f"feedback.constitution[{place}]: ")
        if self.n < 2:
            raise BadInput(f"feedback.n: a comparison needs at least 2 completions, got {self.n}")
        if not self.noise >= 0:
            raise BadInput(f"feedback.noise: must be 0 or more, got {self.noise}")


@dataclass(frozen=True)
class EvaluationConfig:
    """How policies are compared."""

    n: int = 2  # completions sampled for an evaluation prompt
    win_rate_judge: Literal["gold", "reward_model"] = "gold"  # reward_model: one fitted to a disjoint split
    # the loss to SFT that counts as none, in units of what verdicts rest on: stated before anything is measured
    margin: float = MARGIN

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            BadInput: Fewer than one sample, or a margin that is none.
        """
        if self.n < 1:
            raise BadInput(f"evaluation.n: must be at least 1, got {self.n}")
        if not 0 < self.margin < math.inf:
            raise BadInput(f"evaluation.margin: must be a number above 0, got {self.margin}")


@dataclass(frozen=True)
class Suite:
    """Everything that is fixed in a comparison, and the methods and seeds that vary."""

    name: str
    data: DataConfig
    methods: dict[str, dict[str, Any]]  # registered name -> the hyperparameters that differ from its defaults
    revision: int = 1  # raised when a change makes results incomparable with earlier ones
    summary: str = ""
    model: ModelConfig = field(default_factory=ModelConfig)
    sampling: Sampling = field(default_factory=Sampling)  # of answers in evaluation; training draws at temperature 1
    feedback: FeedbackConfig = field(default_factory=FeedbackConfig)
    sft: Schedule = field(default_factory=Schedule)
    reward_model: RewardModelling = field(default_factory=RewardModelling)  # of every method that fits one
    budget: Budget = field(default_factory=Budget)
    seeds: tuple[int, ...] = (0,)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    evaluators: tuple[str, ...] = ("win_rate", "kl", "behaviour")
    report_to: ReportTo = "none"  # a tracker that training curves are sent to, too
    threads: int = 0  # of the CPU, at most, for one cell: 0 takes what the machine gives; 1 for the smallest models

    def __post_init__(self) -> None:
        """Check what no single section can.

        Raises:
            BadInput: No methods or seeds, a seed given twice, an unknown dataset, or sections that contradict.
        """
        if not self.methods:
            raise BadInput("methods: name at least one method")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise BadInput(f"seeds: give at least one, each once; got {list(self.seeds)}")
        if self.threads < 0:
            raise BadInput(f"threads: must be 0 (what the machine gives) or more, got {self.threads}")
        if self.data.dataset not in DATASETS:
            raise BadInput(f"data.dataset: unknown dataset {self.data.dataset!r}{nearest(self.data.dataset, DATASETS)}")
        if self.feedback.annotator == "human" and not DATASETS[self.data.dataset].human_pairs:
            raise BadInput(f"feedback.annotator: {self.data.dataset!r} has no human pairs; set it to 'simulated'")
        if self.feedback.annotator == "exact" and self.data.dataset != "exact":
            raise BadInput("feedback.annotator: only the dataset 'exact' knows the truth; set it to 'simulated'")
        if self.feedback.annotator != "exact" and self.data.world.feedback_kind != "whole":
            raise BadInput("data.world.feedback_kind: only an exact annotator compares segments; set it to 'whole'")
        for split in ("sft", "reward_model", "train", "evaluation"):
            if self.data.sizes.get(split) == 0:
                raise BadInput(f"data.sizes.{split}: must be at least 1; without prompts nothing can be compared")
        for section, sampling in (("sampling", self.sampling), ("feedback.sampling", self.feedback.sampling)):
            if (sampling.max_new_tokens or 0) > self.model.max_new_tokens:
                raise BadInput(f"{section}.max_new_tokens: more than model.max_new_tokens")
        if "kl" in self.evaluators and replace(self.sampling, max_new_tokens=None) != Sampling():
            raise BadInput("sampling: the evaluator 'kl' is of answers drawn at temperature 1 from all tokens; leave "
                           "kl out of evaluators, or sampling as it is")  # fmt: skip


def load_suite(
    name_or_path: str, overrides: Mapping[str, Any] | None = None, methods: Sequence[str] | None = None
) -> Suite:
    """Read a suite, lay overrides over it and check every key and type.

    Args:
        name_or_path: A built-in name or the path of a YAML file; behind a study's, ``/VARIANT`` names one of its own.
        overrides: Dotted paths to values, as ``--set`` gives them: ``method.dpo.beta``, ``sft.learning_rate``.
        methods: Those wanted, with what the suite or an override sets of them; by default those that it compares.

    Raises:
        BadInput: No such suite, unknown keys, methods or datasets, wrong types; names the file, line and key. Or a
            study, which is several suites; names its variants.
    """
    given = read_suite_values(name_or_path)
    if given.variants:
        names = ", ".join(f"{name_or_path}/{variant}" for variant in given.variants)
        raise BadInput(f"{given.origins['variants']}: {name_or_path} is a study, not one suite; give one of {names}")
    for key, value in (overrides or {}).items():
        given.override(key, value)
    try:
        return _build(given, methods)
    except BadInput as error:
        raise given.located(error) from None


def _build(given: SuiteValues, methods: Sequence[str] | None) -> Suite:
    values = {key: value for key, value in given.values.items() if value is not None}
    for key in ("data", "methods"):
        if key not in values:
            raise BadInput(f"the key {key!r} is missing")
    if isinstance(values["data"], dict) and "dataset" not in values["data"]:
        raise BadInput(f"data: the key 'dataset' is missing; known datasets: {', '.join(DATASETS)}")
    if isinstance(values["methods"], dict):  # a method without hyperparameters is written `dpo:`
        given_methods = {name: {} if fields is None else fields for name, fields in values["methods"].items()}
        compared = _compared(given_methods, values.pop("compare", None))
        values["methods"] = {name: given_methods.get(name, {}) for name in methods} if methods else compared
    suite = build(Suite, _with_constitution(values))
    if given.variant:
        suite = replace(suite, name=f"{suite.name}/{given.variant}")
    for name, hyperparameters in suite.methods.items():
        build_method(name, hyperparameters)
    return suite


def _with_constitution(values: dict[str, Any]) -> dict[str, Any]:
    """Put the principles themselves in place of a constitution's name: they are what makes two runs comparable."""
    feedback = values.get("feedback")
    if not isinstance(feedback, dict) or not isinstance(feedback.get("constitution"), str):
        return values
    name = feedback["constitution"]
    try:
        found = () if name == "default" else read_constitution(name)
    except BadInput as error:
        raise BadInput(f"feedback.constitution: {error}") from None
    return {**values, "feedback": {**feedback, "constitution": [dataclasses.asdict(one) for one in found]}}


def _compared(methods: dict[str, Any], names: Any) -> dict[str, Any]:
    """Return the methods that ``compare`` names, in its order: a suite that extends another may want fewer."""
    if names is None:
        return methods
    if not isinstance(names, list) or not names:
        raise BadInput(f"compare: expected a list of methods, got {names!r}")
    for name in names:
        if name not in methods:
            raise BadInput(f"compare: {name!r} is not among the suite's methods{nearest(str(name), methods)}")
    return {name: methods[name] for name in names}


def build_method(name: str, hyperparameters: Mapping[str, Any]) -> Method:
    """Build a registered method with some of its hyperparameters set.

    Args:
        name: The registered key.
        hyperparameters: Plain values by field name; the others keep their defaults.

    Raises:
        BadInput: Unknown method or hyperparameter, or a wrong type.
    """
    try:
        method = registry.find(name).build()
    except BadInput as error:
        raise BadInput(f"methods.{name}: {error}") from None
    return build(type(method), hyperparameters, f"methods.{name}", method) if hyperparameters else method


def resolved(suite: Suite) -> dict[str, Any]:
    """Return the suite as plain values, defaults included; written to a file, it loads as the same suite."""
    plain: dict[str, Any] = _lists(dataclasses.asdict(suite))
    return plain


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, list | tuple) else value


def suite_digest(suite: Suite) -> str:
    """Return the digest of what makes two runs comparable: all but those of ``_NOT_IN_DIGEST``."""
    return digest({key: value for key, value in resolved(suite).items() if key not in _NOT_IN_DIGEST})


@dataclass(frozen=True)
class SuiteEntry:
    """A built-in suite, for lists."""

    name: str
    summary: str
    revision: int
    dataset: str
    variants: tuple[str, ...] = ()  # of a study


def list_suites() -> list[SuiteEntry]:
    """Return the built-in suites by name."""
    found = [read_suite_values(file.stem) for file in sorted(SUITES.glob("*.yaml"))]
    suites = [(one.values, tuple(one.variants)) for one in found]
    return [
        SuiteEntry(suite["name"], suite["summary"], suite["revision"], suite["data"]["dataset"], variants)
        for suite, variants in suites
    ]
