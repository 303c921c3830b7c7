"""What a run records of itself: versions, machine, model, and the cards of its methods and evaluators."""

from __future__ import annotations

import importlib.metadata
import platform
import shlex
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alignarena.benchmarks.suite import Suite, suite_digest
from alignarena.core import registry
from alignarena.core.contract import Method
from alignarena.evaluators.registry import find as find_evaluator
from alignarena.harness.backbone import Backbone

_PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets", "numpy", "scipy", "vaderSentiment")
_HUMAN_WINS = "by a reward model trained on a disjoint half of the human pairs; see its accuracy"


def provenance(
    plan: Suite,
    methods: Mapping[str, Method],
    backbone: Backbone,
    files: Iterable[str | Path],
    known: Mapping[str, Any],
    folder: Path,
) -> dict[str, Any]:
    """Return what ``provenance.json`` holds.

    Args:
        plan: The suite as it runs now.
        methods: Its methods, built.
        backbone: The model that runs it.
        files: Loose method files that were loaded; scoring the run again loads them too.
        known: What earlier runs into the folder recorded: the cards of methods that this one leaves out stay.
        folder: The run folder.
    """
    versions = {name: _version(name) for name in ("alignarena", *_PACKAGES)}
    return {
        "versions": versions | {"python": platform.python_version()},
        "alignarena": _version("alignarena"),
        "suite_digest": suite_digest(plan),
        "device": f"{backbone.accelerator.device} x {backbone.accelerator.num_processes}",
        "machine": f"{platform.machine()}, {platform.system()}",
        "precision": f"{backbone.precision}: {backbone.precision_reason}",
        "model": {
            "name": plan.model.model_name_or_path,
            "digest": backbone.digest,
            "parameters": backbone.parameters,
            "attention": backbone.form,
        },
        "seeds": sorted({*known.get("seeds", ()), *plan.seeds}),
        "command": _command(folder),
        "started": now(),
        "methods": {**known.get("methods", {}), **{name: _card(name, method) for name, method in methods.items()}},
        "method_files": sorted({*known.get("method_files", ()), *(str(Path(file).resolve()) for file in files)}),
        "evaluators": {**known.get("evaluators", {}), **evaluator_cards(plan, plan.evaluators)},
    }


def evaluator_cards(plan: Suite, names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return the role of each evaluator and a note on what it is in this suite."""
    cards = {name: {"role": find_evaluator(name).role, "note": find_evaluator(name).summary} for name in names}
    if "win_rate" in cards and plan.evaluation.win_rate_judge == "reward_model":
        cards["win_rate"]["note"] = _HUMAN_WINS
    return cards


def now() -> str:
    """Return the time in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _command(folder: Path) -> str:
    """Return the command that was given; where Python asked for the run, one that runs its suite."""
    if sys.argv[1:2] == ["run"]:  # of a worker's process, too
        return shlex.join(["alignarena", *sys.argv[1:]])
    return shlex.join(["alignarena", "run", str(folder / "suite.resolved.yaml"), "--out", f"{folder}-again"])


def _card(name: str, method: Method) -> dict[str, Any]:
    entry = registry.find(name)
    documentation = sys.modules[entry.module].__doc__ or ""
    card = {
        "paper": entry.paper,
        "family": entry.family,
        "informed": entry.informed,
        "summary": entry.summary,
        "differs": " ".join(documentation.partition("Differs from the paper:")[2].partition("\n\n")[0].split()),
        "hyperparameters": asdict(method),  # type: ignore[call-overload]
    }
    return card | ({"kl": "analytic upper bound"} if name == "best_of_n" else {})


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
