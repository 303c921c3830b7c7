"""Completions and scores as other tools read them: AlpacaEval, Arena-Hard, MT-Bench and lm-evaluation-harness.

The fields are those that the tools write themselves (`docs/export.md`). Of several completions of a prompt AlpacaEval
and Arena-Hard take the first; MT-Bench's answers hold them all as choices, and scores are of all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from alignarena.core.digest import digest
from alignarena.core.errors import BadInput, nearest
from alignarena.core.files import write_json, write_jsonl
from alignarena.core.text import prompt_text
from alignarena.results.cell_means import cell_means
from alignarena.results.cells import Cell
from alignarena.results.frame import Results, load_results
from alignarena.results.store import RunFolder

_HIGHER_IS_BETTER = ("gold", "win")


def export_results(run_dir: str | Path, format: str, to: str | Path) -> list[Path]:
    """Write every finished cell of a run in another tool's format.

    Args:
        run_dir: A run folder, or a study's.
        format: ``alpaca_eval``, ``arena_hard``, ``mt_bench`` or ``lm_eval``.
        to: The folder to write into; files of the same names are replaced.

    Returns:
        The files written.

    Raises:
        BadInput: Not a run folder, an unknown format, or a run without a finished cell, or without completions.
    """
    if format not in _FORMATS:
        raise BadInput(f"unknown format {format!r}{nearest(format, _FORMATS)}")
    results = load_results(run_dir)
    finished = list(_finished(results))
    if not finished:
        raise BadInput(f"{run_dir} has no finished cell; run the suite first")
    if format != "lm_eval" and not all(cell.completions for _, _, cell in finished):
        raise BadInput(f"{run_dir} lacks completions: it was trimmed to its figures; export from the whole run")
    files = {Path(to) / name: rows for name, rows in _FORMATS[format](finished)}
    for path, content in files.items():
        (write_jsonl if path.suffix == ".jsonl" else write_json)(path, content)
    return list(files)


Finished = tuple[str, RunFolder, Cell]  # with a name of its own in the other tool
Files = Iterator[tuple[str, Any]]  # path below the folder, and its content


def _finished(results: Results) -> Iterator[Finished]:
    for entry in results.entries.values():
        for cell in entry.finished:
            yield f"{entry.label.replace('/', '-')}-{cell.seed}", entry.folder, cell


def _alpaca_eval(finished: Sequence[Finished]) -> Files:
    for name, folder, cell in finished:
        yield f"{name}/model_outputs.json", [
            {"dataset": _suite(folder), "instruction": prompt_text(answers[0]["prompt"]),
             "output": answers[0]["completion"], "generator": name}
            for answers in _by_prompt(cell)
        ]  # fmt: skip


def _arena_hard(finished: Sequence[Finished]) -> Files:
    yield "question.jsonl", [
        {"uid": uid, "category": category, "prompt": prompt_text(prompt)}
        for uid, category, prompt in _questions(finished)
    ]
    for name, folder, cell in finished:
        yield f"model_answer/{name}.jsonl", [
            {"uid": str(one["prompt_id"]), "ans_id": digest(name, one["prompt_id"]), "model": name,
             "messages": [{"role": "user", "content": prompt_text(one["prompt"])},
                          {"role": "assistant", "content": {"answer": one["completion"]}}],
             "tstamp": _time(folder), "metadata": {"token_len": one.get("tokens")}}
            for one, *_ in _by_prompt(cell)
        ]  # fmt: skip


def _mt_bench(finished: Sequence[Finished]) -> Files:
    yield "question.jsonl", [
        {"question_id": uid, "category": category, "turns": [prompt_text(prompt)]}
        for uid, category, prompt in _questions(finished)
    ]
    for name, folder, cell in finished:
        yield f"model_answer/{name}.jsonl", [
            {"question_id": str(answers[0]["prompt_id"]), "answer_id": digest(name, answers[0]["prompt_id"]),
             "model_id": name, "tstamp": _time(folder),
             "choices": [{"index": i, "turns": [one["completion"]]} for i, one in enumerate(answers)]}
            for answers in _by_prompt(cell)
        ]  # fmt: skip


def _lm_eval(finished: Sequence[Finished]) -> Files:
    for name, folder, cell in finished:
        day = datetime.fromtimestamp(_time(folder), UTC).strftime("%Y-%m-%dT%H-%M-%S")
        yield f"{name}/results_{day}.json", _harness_results(name, folder, cell)


def _harness_results(name: str, folder: RunFolder, cell: Cell) -> dict[str, Any]:
    task, suite = f"alignarena_{_suite(folder)}", folder.suite
    means: dict[str, Any] = {"alias": task}
    for metric, found in cell_means(_suite(folder), cell):
        error = found.standard_error if math.isfinite(found.standard_error) else "N/A"
        means |= {f"{metric},none": found.mean, f"{metric}_stderr,none": error}
    prompts, version = len({row["prompt_id"] for row in cell.scores}), suite.get("revision", 1)
    return {
        "results": {task: means},
        "group_subtasks": {task: []},
        "configs": {task: {"task": task, "num_fewshot": 0, "output_type": "generate_until",
                           "metadata": {"version": version}}},
        "versions": {task: version},
        "n-shot": {task: 0},
        "higher_is_better": {task: {metric: True for metric in _HIGHER_IS_BETTER if f"{metric},none" in means}},
        "n-samples": {task: {"original": prompts, "effective": prompts}},
        "config": {"model": "alignarena", "model_args": _model_arguments(suite), "random_seed": cell.seed},
        "date": _time(folder),
        "model_source": "alignarena",
        "model_name": name,
        "model_name_sanitized": name,
        "task_hashes": {},
    }  # fmt: skip


_FORMATS: Mapping[str, Callable[[Sequence[Finished]], Files]] = {
    "alpaca_eval": _alpaca_eval,
    "arena_hard": _arena_hard,
    "mt_bench": _mt_bench,
    "lm_eval": _lm_eval,
}


def _by_prompt(cell: Cell) -> Iterator[list[dict[str, Any]]]:
    """Yield the completions of each prompt, by sample."""
    rows = sorted(cell.completions, key=lambda row: (str(row["prompt_id"]), row["sample"]))
    for _, answers in groupby(rows, key=lambda row: str(row["prompt_id"])):
        yield list(answers)


def _questions(finished: Sequence[Finished]) -> Iterator[tuple[str, str, Any]]:
    """Yield id, kind and prompt of every prompt that any cell answered."""
    prompts = {str(row["prompt_id"]): row for _, _, cell in finished for row in cell.completions}
    for uid, row in sorted(prompts.items()):
        yield uid, str(row.get("kind") or "ordinary"), row["prompt"]


def _suite(folder: RunFolder) -> str:
    return str(folder.suite.get("name") or folder.name).replace("/", "_")


def _model_arguments(suite: Mapping[str, Any]) -> str:
    model = suite.get("model") or {}
    return f"pretrained={model.get('model_name_or_path') or model.get('name')}"


def _time(folder: RunFolder) -> float:
    """Return when the run began, in seconds since 1970; 0 where it is not noted."""
    noted = folder.provenance.get("started")
    return datetime.fromisoformat(str(noted)).timestamp() if noted else 0.0
