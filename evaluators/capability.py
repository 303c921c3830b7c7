"""What alignment costs elsewhere: small multiple-choice tasks that no training touches, answered by log-probs.

Three tasks of our own in the format of lm-eval (``evaluators/tasks``), scored as it scores ``acc``: the most probable
choice is the answer. Any other task of lm-eval runs as the evaluator ``lm_eval:TASK``.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from alignarena.core.files import read_jsonl
from alignarena.evaluators.evidence import Evidence, Measures, Row
from alignarena.evaluators.likelihood import of_choices

TASKS = Path(__file__).parent / "tasks"
PREFIX = "capability_"


def measure(evidence: Evidence) -> Iterable[tuple[Row, Measures]]:
    """Yield ``capability_TASK``, 1.0 or 0.0, of each question; nothing of a policy without log-probs."""
    for file in sorted(TASKS.glob("*.jsonl")):
        questions = read_jsonl(file)
        found = of_choices(evidence.lab, evidence.policy, [(one["question"], one["choices"]) for one in questions])
        for place, (one, logps) in enumerate(zip(questions, found or (), strict=False)):
            name = f"{file.stem}/{place}"
            yield {"prompt_id": name, "cluster": name, "sample": 0}, {PREFIX + file.stem: answered(logps, one)}


def answered(logps: list[float], question: dict[str, Any]) -> float:
    """Return 1.0 if the right choice is the most probable one; the first of equals is taken, as lm-eval does."""
    return float(logps.index(max(logps)) == question["answer"])
