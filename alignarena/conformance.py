"""Does a method keep the contract? A lab that trains nothing, and the checks that every registered method passes.

A method's own test is two lines::

    from alignarena.conformance import check_method

    def test_my_method_keeps_the_contract() -> None:
        check_method("my_method")
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
import typing
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from alignarena.core.config import coerce
from alignarena.core.contract import Method, Policy
from alignarena.core.errors import BadInput
from alignarena.core.registry import find
from alignarena.paper_lab import PaperLab, paper_task
from alignarena.paper_loss import require

# What of a task says in words what is wanted, or comes from a model that was told.
_NO_WORDS: dict[str, Any] = {"goal": "", "grades": (), "labeler": None, "reviser": None, "principles": ()}


def check_method(method: str | Callable[[], Method]) -> PaperLab:
    """Align twice with a lab that trains nothing, and check what the contract asks of a method.

    The module says how it differs from the paper; the method is a frozen dataclass whose fields a suite file can set
    and which keeps no other state; it uses only the lab's verbs, on rows that hold what they read; no draw is made
    twice; equal inputs give equal policies; a used-up budget ends it normally; the policy it returns can be sampled;
    a registered one is told in words what is wanted only if it says so.

    Args:
        method: The key of a registered method, or what builds it from its defaults.

    Returns:
        The lab it ran in; ``log`` lists the verbs in the order of their calls.

    Raises:
        AssertionError: The method breaks the contract; the message says how.
        BadInput: No such method.
    """
    build = find(method).build if isinstance(method, str) else method
    module = sys.modules[build.__module__]
    require("Differs from the paper:" in (module.__doc__ or ""), f"{module.__name__}: no 'Differs from the paper:'")
    _check_fields(build())
    labs = [_align(build, PaperLab(), messages=False) for _ in range(2)]
    require(labs[0].log == labs[1].log, "two runs of equal inputs used other verbs; draw from lab.random")
    _align(build, PaperLab(), messages=True)
    _align(build, PaperLab(seed=1, rollouts_in_budget=1), messages=False)
    if isinstance(method, str):
        _check_information(method, labs[0])
    return labs[0]


def _align(build: Callable[[], Method], lab: PaperLab, messages: bool, **given: Any) -> PaperLab:
    method = build()
    before = dict(vars(method))
    task = replace(paper_task(messages), **given)
    policy = method.align(task, lab)
    require(vars(method) == before, f"align changed the state of {method!r}")
    _check_policy(policy, task.prompts, lab)
    return lab


def _check_information(name: str, told: PaperLab) -> None:
    """Check that a method is in its track: left without words, an informed one does something else, or nothing."""
    entry = find(name)
    try:
        informed = _align(entry.build, PaperLab(), messages=False, **_NO_WORDS).log != told.log
    except Exception:
        informed = True  # it did well with them
    said = f"is {'' if informed else 'not '}told in words what is wanted"
    require(informed == entry.informed, f"{name} {said}: register it with informed={informed}")


def _check_policy(policy: Policy, prompts: Any, lab: PaperLab) -> None:
    name = type(policy).__name__
    require(isinstance(getattr(policy, "digest", None), str), f"align returned a {name}, which has no digest")
    sampled = lab.sample(policy, prompts, 2, stream="evaluation")
    require(len(sampled) == 2 * len(prompts), f"{name} gave {len(sampled)} completions for n=2, {len(prompts)} prompts")
    lab.log.append(f"policy {policy.digest}")


def _check_fields(method: Method) -> None:
    """Check that a suite file can set every field: its default, as YAML would give it, is read back unchanged."""
    cls = type(method)
    require(dataclasses.is_dataclass(method), f"{cls.__name__} is not a dataclass")
    require(cls.__dataclass_params__.frozen, f"{cls.__name__} is not frozen")  # type: ignore[attr-defined]
    fields = {field.name for field in dataclasses.fields(method)}  # type: ignore[arg-type]
    require(vars(method).keys() <= fields, f"{cls.__name__} keeps state beside its fields")
    require(list(inspect.signature(cls.align).parameters) == ["self", "task", "lab"], "align takes (task, lab)")
    hints = typing.get_type_hints(cls)
    for name in sorted(fields):
        value = getattr(method, name)
        try:
            read = coerce(hints[name], _as_yaml(value), name, value)
        except BadInput as error:
            raise AssertionError(f"{cls.__name__}.{name} cannot be set from a suite file: {error}") from error
        require(read == value, f"{cls.__name__}.{name}: {value!r} is read back as {read!r}")


def _as_yaml(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _as_yaml(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return [_as_yaml(item) for item in value]
    return value
