"""lm-eval as a library: our own task files give the numbers that the evaluator gives without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from choosy_policy import Knows, evidence

from alignarena.core.errors import BadInput
from alignarena.evaluators import capability
from alignarena.evaluators.capability import TASKS
from alignarena.evaluators.registry import find


def test_one_reads_a_task_file_as_the_other() -> None:
    pytest.importorskip("lm_eval")
    found = list(find(f"lm_eval:{TASKS / 'facts.yaml'}").measure(evidence(Knows())))
    theirs = {row["prompt_id"].partition("/")[2]: values["alignarena_facts_acc"] for row, values in found}
    ours = {row["prompt_id"].partition("/")[2]: values["capability_facts"]
            for row, values in capability.measure(evidence(Knows())) if "capability_facts" in values}  # fmt: skip
    assert theirs == ours and len(ours) == 40


@pytest.mark.parametrize("task", ["no_such_task_of_lm_eval", "nowhere.yaml"])
def test_a_task_that_is_not_there_is_named(task: str) -> None:
    pytest.importorskip("lm_eval")
    with pytest.raises(BadInput, match=Path(task).stem):
        list(find(f"lm_eval:{task}").measure(evidence(Knows())))


def test_without_it_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins

    plain = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("lm_eval"):
            raise ImportError(name)
        return plain(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(BadInput, match=r"alignarena\[lm-eval\]"):
        list(find("lm_eval:arc_easy").measure(evidence(Knows())))
