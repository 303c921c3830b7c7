"""What the completions browser of the page shows: prompts, and each method's completions with their scores."""

from __future__ import annotations

from typing import Any

from alignarena.core.text import prompt_text
from alignarena.results.exact import EVALUATOR
from alignarena.results.frame import Results

MOST_PROMPTS = 300  # embedded; a page must stay small enough to open on a phone


def browsable(results: Results) -> dict[str, Any]:
    """Return prompts, methods and completions as plain values, at most :data:`MOST_PROMPTS` prompts, evenly spread."""
    prompts: dict[str, str] = {}
    cells: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for entry in results.entries.values():
        for cell in entry.finished:
            scores = _scores(cell.scores)
            for row in cell.completions:
                prompt_id = _prompt_id(results, entry.baseline, str(row["prompt_id"]))
                prompts.setdefault(prompt_id, prompt_text(row.get("prompt", "")))
                found = scores.get((str(row["prompt_id"]), row.get("sample")), {})
                of_prompt = cells.setdefault(entry.label, {}).setdefault(prompt_id, [])
                of_prompt.append(_completion(row, cell.seed, found))
    total = len(prompts)
    stride = max(total, MOST_PROMPTS)
    kept = [prompt_id for i, prompt_id in enumerate(prompts) if i * MOST_PROMPTS % stride < MOST_PROMPTS]
    return {
        "prompts": [{"id": prompt_id, "text": prompts[prompt_id]} for prompt_id in kept],
        "methods": list(cells),
        "completions": {
            label: {prompt_id: found[prompt_id] for prompt_id in kept if prompt_id in found}
            for label, found in cells.items()
        },
    }


def _prompt_id(results: Results, baseline: str, prompt_id: str) -> str:
    """Ids of different suites are kept apart by the label of their run."""
    run, _, _ = baseline.rpartition("/")
    return f"{run}/{prompt_id}" if run else prompt_id


def _scores(rows: list[dict[str, Any]]) -> dict[tuple[str, Any], dict[str, float]]:
    found: dict[tuple[str, Any], dict[str, float]] = {}
    for row in rows:
        # Exact figures are of a policy on a prompt, not of the one completion that has their sample number.
        if row["value"] is not None and row["evaluator"] != EVALUATOR:
            found.setdefault((str(row["prompt_id"]), row["sample"]), {})[row["metric"]] = round(row["value"], 4)
    return found


def _completion(row: dict[str, Any], seed: int, scores: dict[str, float]) -> dict[str, Any]:
    return {
        "text": row["completion"],
        "seed": seed,
        "sample": row.get("sample", 0),
        "finish": row.get("finish_reason", ""),
        "tokens": row.get("tokens"),
        "scores": scores,
    }
