"""A study: a suite file whose variants each run as a suite of their own, into folders beside each other."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignarena.benchmarks import plan, rescore, sweep
from alignarena.benchmarks.jobs import own_threads, processes
from alignarena.benchmarks.suite import Suite
from alignarena.benchmarks.suite_file import variants_of
from alignarena.core.errors import AlignArenaError, BadInput
from alignarena.core.files import read_json, write_json
from alignarena.results.frame import STUDY, run_folders


def run(
    suite: str,
    out: str | Path | None = None,
    methods: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    set: Mapping[str, Any] | None = None,
    method_files: Sequence[str | Path] = (),
    jobs: int | None = None,
) -> tuple[Path, list[str]]:
    """Run a suite, or every variant of a study, or go on with what the folder lacks.

    Arguments are those of :func:`alignarena.benchmarks.sweep.run` and hold for every variant. The run folder of a
    variant is ``OUT/VARIANT``.

    Returns:
        The folder, and what failed: cells as ``METHOD/SEED``, of a study as ``VARIANT/METHOD/SEED``; a variant that
        ended as a whole as its name and why, in brackets. No failure ends the other variants.

    Raises:
        BadInput: The suite, a variant, a method or the folder does not fit.
        RunFailed: No variant could run.
    """
    given: dict[str, Any] = {"methods": methods, "seeds": seeds, "set": set, "method_files": method_files}
    variants = variants_of(suite)
    if not variants:
        return sweep.run(suite, out=out, jobs=jobs, **given)
    plans = {variant: sweep.planned(f"{suite}/{variant}", **given) for variant in variants}  # all, before any begins
    name = _study_name(plans[variants[0]])
    folder = Path(out) if out else Path("runs") / name
    if processes().is_main_process:
        _claim_folder(folder, name, variants)
    return folder, _run_variants(suite, variants, folder, jobs=jobs, **given)


def _run_variants(suite: str, variants: Sequence[str], folder: Path, **given: Any) -> list[str]:
    failed, errors = list[str](), list[AlignArenaError]()
    for variant in variants:
        try:
            _, cells = sweep.run(f"{suite}/{variant}", out=folder / variant, **given)
            failed += [f"{variant}/{cell}" for cell in cells]
        except AlignArenaError as error:
            errors.append(error)
            failed.append(f"{variant} ({error})")
            print(f"variant {variant}: {error}", file=sys.stderr)
    if len(errors) == len(variants):
        raise errors[0]
    return failed


def _study_name(plan_of_variant: Suite) -> str:
    return plan_of_variant.name.rpartition("/")[0]


def _claim_folder(folder: Path, name: str, variants: Sequence[str]) -> None:
    if (folder / "suite.resolved.yaml").is_file():
        raise BadInput(f"{folder} holds the run of a single suite; choose another --out, or remove it")
    known = read_json(folder / STUDY, {})
    if known.get("name", name) != name:
        raise BadInput(f"{folder} holds the study {known['name']!r}; choose another --out, or remove it")
    every = list(dict.fromkeys([*variants, *known.get("variants", [])]))  # the file may have lost some since
    write_json(folder / STUDY, {"name": name, "variants": every})


def dry_run(suite: str, **given: Any) -> str:
    """Return the plan of a suite, or those of a study's variants; arguments and errors as those of a dry run."""
    variants = variants_of(suite)
    plans = [plan.dry_run(one, **given) for one in [f"{suite}/{variant}" for variant in variants] or [suite]]
    return "\n\n".join(plans)


def score(run_dir: str | Path, evaluators: Sequence[str] | None = None) -> None:
    """Score a run folder, or those of a study's variants, again; arguments and errors as those of scoring one."""
    with own_threads():
        for folder in run_folders(run_dir):
            rescore.score(folder.path, evaluators)
