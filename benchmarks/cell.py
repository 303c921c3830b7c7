"""One cell of a sweep: a method at a seed, aligned, sampled and scored, every file written before it counts as done."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from datasets import Dataset

from alignarena.benchmarks.exact.laboratory import Laboratory, Measured
from alignarena.benchmarks.start import Given, Start
from alignarena.benchmarks.suite import Suite, suite_digest
from alignarena.benchmarks.trackers import report_curves
from alignarena.core.contract import Judge, Lab, Method, Policy, Rows, Scorer, TrainablePolicy
from alignarena.core.digest import digest
from alignarena.core.errors import BadInput, BudgetUsedUp, RunFailed, Unusable
from alignarena.core.files import atomic_write, write_json
from alignarena.evaluators.heldout_reward import linear_reward_model
from alignarena.evaluators.registry import evaluate
from alignarena.harness.lab import HarnessLab
from alignarena.methods.parts.reward_losses import KWiseRewardLoss
from alignarena.results.convergence import last_rise
from alignarena.results.model_card import model_card
from alignarena.results.store import RunFolder

_IN_COMPLETIONS = ("prompt_id", "prompt", "cluster", "sample", "completion", "completion_ids", "finish_reason",
                   "topic_names", "kind", "inference_tokens")  # fmt: skip


@dataclass(frozen=True)
class Bench:
    """What the cells of one seed share beside the task: SFT's completions, the proxy and the judge."""

    given: Given
    lab: Lab  # of shared work and evaluation: metered apart, charged to no method

    @cached_property
    def sft(self) -> TrainablePolicy:
        """The SFT policy of this seed."""
        return self.given.sft(self.lab)

    @cached_property
    def baseline(self) -> Rows:
        """The SFT policy's answers to the evaluation prompts."""
        return self.answers(self.sft)

    @cached_property
    def proxy(self) -> Scorer:
        """The suite's reward model, as the methods fit it."""
        return self.given.suite.reward_model.fit(self.given.task(self.sft, self.lab), self.lab)

    @cached_property
    def judge(self) -> Scorer:
        """What decides wins: the gold of a simulation, or a reward model of preferences no method has seen."""
        suite = self.given.suite
        if suite.evaluation.win_rate_judge == "gold":
            return self.given.gold
        preferences = self.given.judge_preferences(self.lab)
        return self.lab.fit_reward_model(self.sft, preferences, KWiseRewardLoss(), suite.reward_model.schedule)

    @cached_property
    def heldout(self) -> dict[str, Rows]:
        """People's pairs by axis that nothing is trained on."""
        return {axis: Dataset.from_list(pairs) for axis, pairs in self.given.splits.heldout.items()}

    @cached_property
    def heldout_reward(self) -> Scorer:
        """A reward model of preferences that no method is given, of another class than theirs."""
        return linear_reward_model(self.given.base, self.given.heldout_preferences(self.sft, self.lab), self.lab)

    @property
    def labeler(self) -> Judge | Scorer:
        """The AI labeler, which also judges what it gave no feedback on."""
        return self.given.labeler

    @cached_property
    def laboratory(self) -> Laboratory | None:
        """Everything that is known exactly; nothing on paper, where no model computes."""
        return self.given.laboratory(self.sft) if isinstance(self.given, Start) else None

    def exact(self, policy: Policy, method: Method) -> Iterable[Measured]:
        """Return a policy's exact measures prompt by prompt."""
        return self.laboratory.measured(policy, method) if self.laboratory is not None else ()

    def answers(self, policy: Policy) -> Rows:
        """Sample a policy on the evaluation prompts."""
        suite = self.given.suite
        prompts = Dataset.from_list(self.given.splits.evaluation)
        return self.lab.sample(policy, prompts, suite.evaluation.n, stream="evaluation", sampling=suite.sampling)


@dataclass(frozen=True)
class CellEvidence:
    """One cell's completions, the policy that wrote them, and the bench they are judged at."""

    bench: Bench
    rows: Rows
    policy: Policy
    method: Method
    lineage: frozenset[str] = frozenset()  # of all that the policy was trained on

    @property
    def heldout_reward(self) -> Scorer:
        """As the bench's."""
        return self.bench.heldout_reward

    @property
    def labeler(self) -> Judge | Scorer:
        """As the bench's."""
        return self.bench.labeler

    @property
    def exact(self) -> Iterable[Measured]:
        """As the bench computes them."""
        return self.bench.exact(self.policy, self.method)

    @property
    def lab(self) -> Lab:
        """As the bench's."""
        return self.bench.lab

    @property
    def baseline(self) -> Rows:
        """As the bench's."""
        return self.bench.baseline

    @property
    def reference(self) -> TrainablePolicy:
        """The SFT policy."""
        return self.bench.sft

    @property
    def proxy(self) -> Scorer:
        """As the bench's."""
        return self.bench.proxy

    @property
    def judge(self) -> Scorer:
        """As the bench's."""
        return self.bench.judge

    @property
    def heldout(self) -> Mapping[str, Rows]:
        """As the bench's."""
        return self.bench.heldout


def aligned(start: Start, bench: Bench, method: Method) -> tuple[Policy, HarnessLab, str]:
    """Align a method in a lab of its own.

    Returns:
        The policy (where the budget ended a method between its fits, its last one), the lab, and what ended it:
        ``finished`` or ``budget``.

    Raises:
        RunFailed: The method cannot go on, or not with this suite.
    """
    lab = start.cell_lab(bench.sft)
    task = start.task(bench.sft, lab)
    try:
        with _its_own_failure():
            policy = method.align(task, lab)
    except BudgetUsedUp:
        policy = lab.account.last_policy or bench.sft
    lab.settle(policy)
    cut_short = any(stage.get("stopped") == "budget" for stage in lab.account.stages)
    return policy, lab, "budget" if lab.account.used_up or cut_short else "finished"


@contextmanager
def _its_own_failure() -> Iterator[None]:
    """Take a wrong input that a method alone meets for its failure, which ends no other's run."""
    try:
        yield
    except Unusable:
        raise
    except BadInput as error:
        raise RunFailed(str(error)) from error


def run_cell(start: Start, bench: Bench, name: str, method: Method, folder: RunFolder) -> None:
    """Align, sample and score one method, and write its folder."""
    start.progress.cell = f"{name}/{start.seed}"
    policy, lab, stopped = aligned(start, bench, method)
    with _its_own_failure():  # a prompt that its instruction makes too long, say
        rows = bench.answers(policy)
    scores = evaluate(start.suite.evaluators, CellEvidence(bench, rows, policy, method, frozenset(lab.account.lineage)))
    if not start.backbone.accelerator.is_main_process:
        return
    metrics = list(_curves(lab))
    folder.write_cell(
        name,
        start.seed,
        config=asdict(method),  # type: ignore[call-overload]
        completions=map(_completion, rows.to_list()),
        scores=scores,
        metrics=metrics,
        budget=_budget(lab),
    )
    saved = folder.cell_path(name, start.seed) / "policy"
    save_policy(policy, saved)
    atomic_write(saved / "README.md", model_card(folder, name, start.seed))
    rise = last_rise(metrics)
    ended = {"rise": asdict(rise)} if rise is not None else {}
    folder.finish_cell(name, start.seed, stopped, digest=cell_digest(start.suite, start.seed, method), **ended)
    report_curves(start.suite.report_to, start.suite.name, f"{name}/{start.seed}", metrics, folder.path)


def cell_digest(suite: Suite, seed: int, method: Method) -> str:
    """Name what a finished cell was made from: an equal one need not run again, nor load the model to find out."""
    return digest(suite_digest(suite), suite.evaluators, seed, method)


def save_policy(policy: Policy, folder: Path) -> None:
    """Copy a policy's adapter or model, that of the policy inside a recipe, and write what it is made of."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_json(folder / "recipe.json", _recipe(policy))
    inside: Any = policy
    while hasattr(inside, "policy"):
        inside = inside.policy
    source = getattr(inside, "folder", None)
    for file in sorted(source.iterdir()) if source else ():
        if file.name.startswith("adapter_") or file.name in ("model.safetensors", "config.json"):
            shutil.copyfile(file, folder / file.name)


def _recipe(value: Any) -> Any:
    """Describe a policy, scorer or number as plain values."""
    if hasattr(value, "__dataclass_fields__"):
        inside = {name: _recipe(getattr(value, name)) for name in value.__dataclass_fields__}
        return {"kind": type(value).__name__, **inside}
    if isinstance(value, frozenset):
        return sorted(value)
    return value if isinstance(value, int | float | str | None) else str(value)


def _completion(row: dict[str, Any]) -> dict[str, Any]:
    tokens = len(row["completion_ids"])
    kept = {key: row[key] for key in _IN_COMPLETIONS if key in row}
    return {"inference_tokens": tokens, **kept, "tokens": tokens}


def _curves(lab: HarnessLab) -> Iterable[dict[str, Any]]:
    """Yield the training logs of a cell's fits in order, those taken from the cache too; then what it noted."""
    fits = [stage for stage in lab.account.stages if stage["verb"].startswith(("fit", "train"))]
    for number, stage in enumerate(fits):
        file = lab.cache.path(stage["key"]) / "metrics.jsonl"
        for line in file.read_text().splitlines():
            yield {"fit": number, "loss_name": stage["stage"].rpartition(" ")[2], **json.loads(line)}
    yield from ({"loss_name": "noted", **values} for values in lab.account.notes)


def _budget(lab: HarnessLab) -> dict[str, Any]:
    account = lab.account
    return {
        "track": lab.budget.track, "budget": lab.budget.limits(), "charged": account.charged.to_dict(),
        "spent": account.spent.to_dict(), "lineage": sorted(account.lineage), "stages": account.stages,
    }  # fmt: skip
