from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from alignarena.core.config import build
from alignarena.core.contract import Schedule
from alignarena.core.errors import BadInput


@dataclass(frozen=True)
class Options:
    beta: float = 0.1
    n: int = 4
    margin: bool = False
    mode: Literal["hard", "soft"] = "hard"
    target: float | None = None
    seeds: tuple[int, ...] = (0,)
    window: tuple[int, str] = (0, "x")
    weights: Mapping[str, float] = field(default_factory=dict)
    schedule: Schedule = Schedule(learning_rate=5e-5)


@dataclass(frozen=True)
class Named:
    name: str


def test_plain_values_become_fields() -> None:
    values = {"beta": 1, "n": 2.0, "seeds": [1, 2], "weights": {"a": "2"}, "target": 3, "window": [5, "y"]}
    assert build(Options, values) == Options(
        beta=1.0, n=2, seeds=(1, 2), weights={"a": 2.0}, target=3.0, window=(5, "y")
    )


def test_nested_values_keep_the_fields_that_are_not_given() -> None:
    built = build(Options, {"schedule": {"batch_size": 8}})
    assert built.schedule == Schedule(learning_rate=5e-5, batch_size=8)


def test_values_are_laid_over_a_start() -> None:
    start = Options(beta=0.5, schedule=Schedule(batch_size=3))
    built = build(Options, {"n": 1, "schedule": {"num_train_epochs": 2}}, start=start)
    assert built == Options(beta=0.5, n=1, schedule=Schedule(batch_size=3, num_train_epochs=2))


def test_yaml_reads_5e5_without_a_dot_as_text_and_it_is_a_number_all_the_same() -> None:
    assert build(Options, {"schedule": {"learning_rate": "5e-5"}}).schedule.learning_rate == 5e-5


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"betta": 1}, "unknown key 'method.betta'; did you mean 'beta'?"),
        ({"schedule": {"batch_sizes": 1}}, "unknown key 'method.schedule.batch_sizes'; did you mean 'batch_size'?"),
        ({"beta": "high"}, "method.beta: expected a number, got 'high'"),
        ({"beta": True}, "method.beta: expected float, got bool True"),
        ({"n": 2.5}, "method.n: expected int, got float 2.5"),
        ({"n": True}, "method.n: expected int, got bool True"),
        ({"margin": 1}, "method.margin: expected bool, got int 1"),
        ({"mode": "medium"}, "method.mode: 'medium' is not one of 'hard', 'soft'"),
        ({"seeds": [0, "one"]}, "method.seeds[1]: expected int, got str 'one'"),
        ({"window": [1]}, "method.window: expected 2 values, got 1: [1]"),
        ({"weights": {"a": "much"}}, "method.weights.a: expected a number, got 'much'"),
        ({"schedule": 5}, "method.schedule: expected Schedule, got int 5"),
    ],
)
def test_a_wrong_value_says_where_it_is(values: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as caught:
        build(Options, values, "method")
    assert str(caught.value) == message


def test_a_field_without_default_must_be_given() -> None:
    with pytest.raises(BadInput, match=r"missing key 'model.name'"):
        build(Named, {}, "model")


def test_fields_must_come_as_a_mapping() -> None:
    with pytest.raises(BadInput, match="method: expected a mapping of Options fields, got 3"):
        build(Options, 3, "method")  # type: ignore[arg-type]
