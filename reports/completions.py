"""What the completions browser of the page holds: an index, and the completions in chunks that it reads when asked.

A chunk is a script element of JSON; of a large run it is compressed, so that the page opens without parsing it. Beyond
what even so would be too much, prompts evenly spread over the run are embedded, and the page says how many are not.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alignarena.core.text import prompt_text
from alignarena.reports.text import script_json
from alignarena.results.exact import EVALUATOR
from alignarena.results.frame import Results

CHUNK = 25  # prompts
MOST_BYTES = 10_000_000  # of all chunks as they stand in the page
_PLAIN_UP_TO = 2_000_000  # bytes of JSON; more is compressed
_MAIN = ("gold", "heldout_reward", "proxy_reward", "win")  # what wins and losses are counted in: the first there is


@dataclass(frozen=True)
class Browsable:
    """What stands in the page.

    Attributes:
        index: JSON of prompts, methods, metrics and each method's mean score on each prompt.
        chunks: JSON of the completions of :data:`CHUNK` prompts each, or base64 of its gzip where ``packed``.
        packed: Whether the chunks are compressed.
        left_out: How many prompts are not in the page.
    """

    index: str
    chunks: list[str]
    packed: bool
    left_out: int


Completion = list[Any]  # text, seed, sample, finish reason, tokens, values of the metrics


@dataclass(frozen=True)
class _Read:
    prompts: dict[str, str]  # id: text
    metrics: list[str]
    of_method: dict[str, dict[str, list[Completion]]]  # label: prompt id: completions


def browsable(results: Results, most_bytes: int = MOST_BYTES) -> Browsable:
    """Return what the page embeds of the completions of all finished cells, at most so many bytes of it."""
    read = _read(results)
    kept = list(read.prompts)
    chunks, packed = _chunks(read, kept)
    size = sum(map(len, chunks))
    if size > most_bytes:
        kept = _spread(kept, int(len(kept) * most_bytes / size))
        chunks, packed = _chunks(read, kept)
    return Browsable(script_json(_index(read, kept, packed)), chunks, packed, len(read.prompts) - len(kept))


def _read(results: Results) -> _Read:
    metrics = [str(name) for name in results.frame.loc[results.frame["evaluator"] != EVALUATOR, "metric"].unique()]
    read = _Read({}, sorted(metrics), {})
    for entry in results.entries.values():
        for cell in entry.finished:
            scores = _scores(cell.scores)
            for row in cell.completions:
                prompt_id = _prompt_id(entry.baseline, str(row["prompt_id"]))
                read.prompts.setdefault(prompt_id, prompt_text(row.get("prompt", "")))
                found = scores.get((str(row["prompt_id"]), row.get("sample")), {})
                values = [found.get(name) for name in read.metrics]
                facts = [row.get("sample", 0), row.get("finish_reason", ""), row.get("tokens")]
                of_prompt = read.of_method.setdefault(entry.label, {}).setdefault(prompt_id, [])
                of_prompt.append([row["completion"], cell.seed, *facts, values])
    return read


def _index(read: _Read, kept: Sequence[str], packed: bool) -> dict[str, Any]:
    main = next((name for name in _MAIN if name in read.metrics), None)
    place = read.metrics.index(main) if main else -1
    means = {label: [_mean(found.get(one, ()), place) if main else None for one in kept]
             for label, found in read.of_method.items()}  # fmt: skip
    prompts = [{"id": one, "text": read.prompts[one]} for one in kept]
    return {"prompts": prompts, "methods": list(read.of_method), "metrics": read.metrics, "main": main,
            "means": means, "chunk": CHUNK, "packed": packed}  # fmt: skip


def _chunks(read: _Read, kept: Sequence[str]) -> tuple[list[str], bool]:
    parts = [kept[i : i + CHUNK] for i in range(0, len(kept), CHUNK)]
    plain = [script_json({label: [found.get(one, []) for one in part] for label, found in read.of_method.items()})
             for part in parts]  # fmt: skip
    if sum(map(len, plain)) <= _PLAIN_UP_TO:
        return plain, False
    return [base64.b64encode(gzip.compress(one.encode(), mtime=0)).decode() for one in plain], True


def _spread(prompts: Sequence[str], count: int) -> list[str]:
    """So many of the prompts, evenly spread."""
    return [one for i, one in enumerate(prompts) if i * count % len(prompts) < count]


def _mean(completions: Sequence[Completion], place: int) -> float | None:
    values = [one[-1][place] for one in completions if one[-1][place] is not None]
    return round(sum(values) / len(values), 4) if values else None


def _prompt_id(baseline: str, prompt_id: str) -> str:
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
