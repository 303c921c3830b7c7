"""Content digests: what a memoised verb is keyed by.

Two values have one digest when a stage computed from either would be the same: rows by their content, frozen
dataclasses by their fields *and the code that defines them and their bases*, so an edited loss never returns a stale
policy. What was imported is named by its source, what a notebook or a script defines for itself by its bytecode.
"""

from __future__ import annotations

import dataclasses
import dis
import functools
import hashlib
import inspect
import json
import sys
from abc import ABC
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from types import CodeType, FunctionType, ModuleType
from typing import Any

# These carry no logic of their own: their source changes nothing that a stage computes.
_PLAIN_DATA = frozenset({"alignarena.core.contract", "alignarena.core.records"})
_PINNED = sys.stdlib_module_names | {"torch"}  # nobody edits these
_MADE = frozenset(vars(dataclasses.make_dataclass("_", (), bases=(ABC,), frozen=True, order=True)))  # not by its author
_texts: dict[str, tuple[Any, str]] = {}  # of a module: the spec that it was loaded by, and its source


def digest(*values: object) -> str:
    """Return 32 hex digits that name the content of the values.

    Raises:
        TypeError: A value has no stable content, such as a lambda or an open file.
    """
    text = json.dumps([_plain(value) for value in values], sort_keys=True, ensure_ascii=False, allow_nan=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    own = getattr(value, "digest", None)
    if isinstance(own, str):
        return {"digest": own}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"class": type(value).__qualname__, "source": _source(type(value)), "fields": fields}
    if hasattr(value, "column_names") and hasattr(value, "to_list"):  # a datasets.Dataset
        return {"columns": value[:]}  # by column: two thirds of the time of rows
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(json.dumps(_plain(item), sort_keys=True) for item in value)
    if isinstance(value, PurePath):
        return str(value)
    raise TypeError(f"{value!r} has no stable content to key a cache by; pass a frozen dataclass instead")


def _source(cls: type) -> str:
    """Hash the code of a class and its bases: their modules, and the modules of the same packages that those use."""
    if cls.__module__ in _PLAIN_DATA:
        return cls.__qualname__
    bases = [base for base in cls.__mro__ if base.__module__ not in _PLAIN_DATA and not _is_pinned(base.__module__)]
    defining = {sys.modules[base.__module__] for base in bases if not _is_of_session(base)}
    modules = {used for module in defining for used in _used(module)}
    text = "".join(_text(used) for used in sorted(modules, key=lambda used: used.__name__))
    compiled = [_compiled(base, []) for base in bases if _is_of_session(base)]
    if compiled:
        text += json.dumps(compiled, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _is_pinned(name: str) -> bool:
    return name.partition(".")[0] in _PINNED


def _is_of_session(value: Any) -> bool:
    """Tell whether a class or function was not imported: what a notebook defines, or a script for itself."""
    name = getattr(value, "__module__", None)
    return isinstance(name, str) and not _is_pinned(name) and getattr(sys.modules.get(name), "__spec__", None) is None


def _used(module: ModuleType) -> set[ModuleType]:
    package = module.__name__.rpartition(".")[0]
    found, queue = set(), [module]
    while queue:
        current = queue.pop()
        if current in found:
            continue
        found.add(current)
        if hasattr(current, "__path__"):
            continue  # a package lists whatever submodules happen to be loaded, which says nothing of what is used
        for item in vars(current).values():
            name = item.__name__ if isinstance(item, ModuleType) else getattr(item, "__module__", None)
            if package and isinstance(name, str) and name.startswith(package) and name in sys.modules:
                queue.append(sys.modules[name])
    return found


def _text(module: ModuleType) -> str:
    """Return the source of a module as it was loaded; edited since, it would name code that does not run."""
    spec, text = _texts.get(module.__name__, (None, ""))
    if not text or spec is not module.__spec__:  # a reload makes another spec
        try:
            text = inspect.getsource(module)
        except (OSError, TypeError):  # an empty file, or a compiled one
            text = module.__name__
        _texts[module.__name__] = module.__spec__, text
    return text


def _compiled(value: Any, seen: list[Any]) -> Any:
    """Return plain values that name code of a session: bytecode, constants, and whatever it uses of the session.

    Raises:
        TypeError: It uses a value without stable content.
    """
    value = _unwrapped(value)
    if isinstance(getattr(value, "__name__", None), str) and not _is_of_session(value):
        return _imported(value)
    if not isinstance(value, FunctionType | type):
        return _plain(value)
    if value in seen:
        return value.__qualname__
    seen.append(value)
    if isinstance(value, type):
        own = {name: item for name, item in vars(value).items() if name not in _MADE}
        return {name: _compiled(item, seen) for name, item in own.items() if callable(item) or name[:2] != "__"}
    bytecode = [_bytecode(code) for code in _codes(value.__code__)]
    return [*bytecode, {name: _compiled(item, seen) for name, item in sorted(_uses(value).items())}]


def _imported(value: Any) -> list[str]:
    """Name a module, or a class or function of one, with the source of what it uses of its package."""
    name = value.__name__ if isinstance(value, ModuleType) else str(getattr(value, "__module__", None))
    module = sys.modules.get(name)
    if module is None or _is_pinned(name) or name in _PLAIN_DATA:
        return [name, value.__name__]
    texts = "".join(_text(used) for used in sorted(_used(module), key=lambda used: used.__name__))
    return [name, value.__name__, hashlib.sha256(texts.encode()).hexdigest()[:16]]


def _uses(function: FunctionType) -> dict[str, Any]:
    """Return the globals that a function reads, its defaults, and what it holds of the function around it."""
    names = {step.argval for code in _codes(function.__code__) for step in dis.get_instructions(code)
             if step.opname == "LOAD_GLOBAL"}  # fmt: skip
    found = {name: function.__globals__[name] for name in names if name in function.__globals__}
    held = [*(function.__defaults__ or ()), *(cell.cell_contents for cell in function.__closure__ or ())]
    return found | (function.__kwdefaults__ or {}) | {str(place): item for place, item in enumerate(held)}


def _unwrapped(value: Any) -> Any:
    """Return the function inside what a decorator of the standard library made of it."""
    if isinstance(value, FunctionType | type):
        return value
    if isinstance(value, functools.cached_property):
        return value.func
    return value.fget if isinstance(value, property) else getattr(value, "__wrapped__", value)


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _bytecode(code: CodeType) -> list[Any]:
    constants = [sorted(map(repr, one)) if isinstance(one, frozenset) else repr(one)
                 for one in code.co_consts if not isinstance(one, CodeType)]  # fmt: skip
    return [code.co_code.hex(), code.co_exceptiontable.hex(), code.co_names, code.co_varnames, constants]
