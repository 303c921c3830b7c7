"""Plain values into frozen dataclasses: types checked, an unknown key an error that names the nearest valid one."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from alignarena.core.errors import BadInput, nearest

T = TypeVar("T")


def build(cls: type[T], values: Mapping[str, Any], where: str = "", start: T | None = None) -> T:
    """Build a dataclass from plain values, over the fields of ``start`` where given.

    Args:
        cls: The dataclass.
        values: Field values as YAML gives them; nested dataclasses as mappings.
        where: Dotted path of the values, for error messages.
        start: Values for the fields not given; the class's defaults if absent.

    Raises:
        BadInput: An unknown key, a missing one, or a value of the wrong type.
    """
    if not isinstance(values, Mapping):
        raise BadInput(f"{where}: expected a mapping of {cls.__name__} fields, got {values!r}")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    given: dict[str, Any] = {}
    for key, value in values.items():
        if key not in fields:
            raise BadInput(f"unknown key {_join(where, key)!r}{nearest(str(key), fields)}")
        current = getattr(start, key) if start is not None else _default(fields[key])
        given[key] = coerce(hints[key], value, _join(where, key), current)
    if start is not None:
        return dataclasses.replace(start, **given)  # type: ignore[type-var]
    missing = [name for name, field in fields.items() if name not in given and not _has_default(field)]
    if missing:
        raise BadInput(f"missing key {_join(where, missing[0])!r}")
    return cls(**given)


def coerce(hint: Any, value: Any, where: str, current: Any = None) -> Any:
    """Check a plain value against a type hint and return it converted.

    Raises:
        BadInput: The value does not fit the hint.
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(current) and isinstance(value, Mapping):
        return build(type(current), value, where, current)
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return build(hint, value, where)  # type: ignore[arg-type]
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _coerce_union(args, value, where)
    if origin is typing.Literal:
        if value in args:
            return value
        raise BadInput(f"{where}: {value!r} is not one of {', '.join(map(repr, args))}")
    if origin in (tuple, list) and isinstance(value, list | tuple):
        hints = args if origin is tuple and args[-1] is not Ellipsis else args[:1] * len(value)
        if len(hints) != len(value):
            raise BadInput(f"{where}: expected {len(hints)} values, got {len(value)}: {value!r}")
        items = [coerce(item, one, f"{where}[{i}]") for i, (item, one) in enumerate(zip(hints, value, strict=True))]
        return tuple(items) if origin is tuple else items
    if origin in (dict, Mapping) or (isinstance(origin, type) and issubclass(origin, Mapping)):
        if isinstance(value, Mapping):
            return {str(key): coerce(args[1], one, _join(where, str(key))) for key, one in value.items()}
    elif hint is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        return _number(value, where)
    elif hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    elif isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    wanted = getattr(hint, "__name__", str(hint))
    raise BadInput(f"{where}: expected {wanted}, got {type(value).__name__} {value!r}")


def _coerce_union(args: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in args:
        return None
    errors = []
    for arg in args:
        if arg is type(None):
            continue
        try:
            return coerce(arg, value, where)
        except BadInput as error:
            errors.append(error)
    raise errors[0]


def _number(value: float | str, where: str) -> float:
    try:
        return float(value)  # YAML 1.1 reads 5e-5 as text
    except ValueError:
        raise BadInput(f"{where}: expected a number, got {value!r}") from None


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None


def _has_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key
