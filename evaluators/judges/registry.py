"""Judges by name: ``longer``, ``local:MODEL``, ``api:MODEL``, ``replay:FILE``, ``human:FILE``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import yaml

from alignarena.core.config import build
from alignarena.core.errors import BadInput, nearest
from alignarena.evaluators.judges.pairs import PairJudge

IN_A_RUN = ("gold", "reward_model")  # judges that only a run folder knows


def find_judge(spec: str, settings: Mapping[str, Any] | None = None) -> PairJudge:
    """Return a judge.

    Args:
        spec: ``KIND``, or ``KIND:WHAT`` with the model or the file.
        settings: Fields that differ from their defaults, such as ``base_url``.

    Raises:
        BadInput: No such judge or field.
    """
    kind, colon, what = spec.partition(":")
    if kind in IN_A_RUN and not colon:
        raise BadInput(f"the judge {kind!r} is that of a run; ask it by `alignarena score RUN_DIR --judge {kind}`")
    if kind not in _KINDS:
        raise BadInput(f"unknown judge {spec!r}{nearest(kind, [*_KINDS, *IN_A_RUN])}")
    make, field = _KINDS[kind]
    if field is not None and not what:
        raise BadInput(f"judge {kind!r}: name its {field}, as in {kind}:{field.upper()}")
    if field is None and colon:
        raise BadInput(f"judge {kind!r}: takes nothing behind a colon")
    given = {name: _plain(value) for name, value in (settings or {}).items()}
    return make({**given, **({field: what} if field else {})})


def _plain(value: Any) -> Any:
    """Read a number or a truth value that a command line gives as text; other texts stay as they are."""
    if not isinstance(value, str):
        return value
    try:
        found = yaml.safe_load(value)
    except yaml.YAMLError:
        return value
    return found if isinstance(found, bool | int | float) else value


def _made(module: str, name: str, **fixed: Any) -> Callable[[Mapping[str, Any]], PairJudge]:
    def make(settings: Mapping[str, Any]) -> PairJudge:
        from importlib import import_module  # a judge loads what it needs when it is asked for

        cls: Any = getattr(import_module(f"alignarena.evaluators.judges.{module}"), name)
        judge: PairJudge = build(cls, {**settings, **fixed}, "judge")
        return judge

    return make


_KINDS: dict[str, tuple[Callable[[Mapping[str, Any]], PairJudge], str | None]] = {
    "longer": (_made("baselines", "Longer"), None),
    "first": (_made("baselines", "First"), None),
    "random": (_made("baselines", "Random"), None),
    "local": (_made("local", "LocalJudge"), "model"),
    "api": (_made("api", "ApiJudge"), "model"),
    "replay": (_made("replay", "ReplayJudge"), "path"),
    "human": (_made("replay", "ReplayJudge", kind="human"), "path"),
}
