"""What a method is given: preferences are bought axis by axis, and all axes together cost what one of all costs."""

import pytest

from alignarena.benchmarks.counting import CountedPolicy, CountingLab, Sizes
from alignarena.benchmarks.datasets import load_dataset_splits
from alignarena.benchmarks.start import Given
from alignarena.benchmarks.suite import load_suite
from alignarena.core.contract import Task

SIZES = Sizes(28, 0, lambda prompt: 10, lambda text: 10)


def given(**settings: str) -> tuple[Task, CountingLab]:
    plan = load_suite("quickstart", {"data.sizes.reward_model": "31", **settings})
    lab = CountingLab(0, sizes=SIZES)
    return Given(plan, load_dataset_splits(plan.data), CountedPolicy("base")).task(CountedPolicy("sft"), lab), lab


def test_the_further_axes_share_the_prompts_and_so_the_labels() -> None:
    task, lab = given()
    axes = {name: task.preferences[name].to_list() for name in ("positivity", "on_topic")}  # type: ignore[union-attr]
    asked = [row["prompt_id"] for rows in axes.values() for row in rows]
    assert [len(rows) for rows in axes.values()] == [16, 15] and len(set(asked)) == 31
    assert lab.total.labels == pytest.approx(31 * 4.584963) and lab.total.completions == 31 * 4
    other, alone = given()
    assert len(other.preferences["overall"]) == 31  # type: ignore[arg-type]
    assert alone.total.labels == pytest.approx(lab.total.labels)


def test_asking_whether_an_axis_is_there_buys_nothing() -> None:
    task, lab = given()
    assert "positivity" in task.preferences and "helpful" not in task.preferences
    assert set(task.preferences) == {"overall", "positivity", "on_topic"}
    assert lab.stages == []


def test_every_axis_has_somebody_to_ask() -> None:
    task, _ = given()
    assert task.annotator is not None and set(task.annotators) == {"positivity", "on_topic"}
    assert task.annotator.lineage == {"vader", "on_topic"}
    assert task.annotators["positivity"].lineage == {"vader"}
    assert task.annotators["on_topic"].lineage == {"on_topic"}
