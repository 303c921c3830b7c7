"""Multiple choice by log-probs: TruthfulQA's two scores, and the small tasks of our own."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest
import yaml
from choosy_policy import Knows, Lab, evidence
from datasets import Dataset

from alignarena.core.errors import BadInput
from alignarena.evaluators import capability, truthfulness
from alignarena.evaluators.capability import TASKS, answered
from alignarena.evaluators.likelihood import Likelihood
from alignarena.evaluators.truthfulness import mc1, mc2

SHARED = Path(os.environ.get("ALIGNARENA_DATA", Path(__file__).parents[3] / "shared" / "data"))


def test_the_end_is_no_part_of_a_choice() -> None:
    rows = Dataset.from_list([{"prompt_id": "p", "prompt": "x", "completion": "abc"}])
    assert Likelihood(Knows()).score(rows, Lab()) == [-3.0]  # type: ignore[arg-type]


def test_mc1_takes_the_most_probable_answer_and_splits_ties() -> None:
    assert mc1([-1.0, -2.0], [1, 0]) == 1.0
    assert mc1([-2.0, -1.0], [1, 0]) == 0.0
    assert mc1([-1.0, -1.0], [1, 0]) == 0.5


def test_mc2_is_the_share_of_probability() -> None:
    logs = [math.log(one) for one in (0.2, 0.1, 0.1)]
    assert mc2(logs, [1, 1, 0]) == pytest.approx(0.75)
    assert mc2([one - 2000 for one in logs], [1, 1, 0]) == pytest.approx(0.75)  # far below what a float holds


def test_truthfulness_reads_the_published_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    question = {"question": "?", "mc1_targets": {"no": 1, "yes!": 0}, "mc2_targets": {"no": 1, "ja": 1, "nein": 0}}
    (tmp_path / "truthfulqa").mkdir()
    (tmp_path / "truthfulqa" / "mc_task.v1.json").write_text(json.dumps([question]))
    monkeypatch.setenv("ALIGNARENA_DATA", str(tmp_path))
    ((row, found),) = truthfulness.measure(evidence(Knows()))
    assert row["prompt_id"] == "truthfulqa/0"
    assert found["truthful_mc1"] == 1.0
    assert found["truthful_mc2"] == pytest.approx(2 / (2 + math.exp(-2)))
    assert not list(truthfulness.measure(evidence(object())))  # a policy without log-probs
    (tmp_path / "truthfulqa" / "mc_task.v1.json").write_text("[{}]")
    with pytest.raises(BadInput, match="mc1_targets"):
        truthfulness.read_questions()


@pytest.mark.skipif(not (SHARED / "truthfulqa").is_dir(), reason="no TruthfulQA on this machine")
def test_all_817_questions_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNARENA_DATA", str(SHARED))
    questions = truthfulness.read_questions()
    assert len(questions) == 817
    assert all(sum(one["mc1_targets"].values()) == 1 for one in questions)


def test_the_first_of_equal_choices_is_the_answer() -> None:
    assert answered([-1.0, -1.0], {"answer": 0}) == 1.0 and answered([-1.0, -1.0], {"answer": 1}) == 0.0


@pytest.mark.parametrize("name", ["arithmetic", "facts", "opposites"])
def test_a_task_of_our_own_is_sound(name: str) -> None:
    questions = [json.loads(line) for line in (TASKS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
    config = yaml.safe_load((TASKS / f"{name}.yaml").read_text(encoding="utf-8"))
    assert len(questions) == 40 == len({one["question"] for one in questions})
    assert all(len(set(one["choices"])) == 4 and one["answer"] in range(4) for one in questions)
    places = [one["answer"] for one in questions]
    assert max(places.count(place) for place in range(4)) < 20  # no place is right half the time
    assert config["dataset_path"] == "json" and config["dataset_kwargs"]["data_files"]["test"] == f"{name}.jsonl"


def test_every_question_of_every_task_is_asked() -> None:
    found = list(capability.measure(evidence(Knows())))
    assert len(found) == 120
    assert {name for _, values in found for name in values} == {
        "capability_arithmetic", "capability_facts", "capability_opposites"
    }  # fmt: skip
    assert not list(capability.measure(evidence(object())))


def test_sums_are_right() -> None:
    for line in (TASKS / "arithmetic.jsonl").read_text(encoding="utf-8").splitlines():
        one = json.loads(line)
        _, _, first, sign, second = one["question"].partition("?")[0].split()
        assert int(one["choices"][one["answer"]]) == int(first) + int(second) * (1 if sign == "plus" else -1)
