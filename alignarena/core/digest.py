"""Content digests: what a memoised verb is keyed by.

Two values have one digest when a stage computed from either would be the same: rows by their content, frozen
dataclasses by their fields *and the source of the code that defines them*, so an edited loss never returns a stale
policy.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import json
import sys
from collections.abc import Mapping
from pathlib import PurePath
from types import ModuleType
from typing import Any

# These carry no logic of their own: their source changes nothing that a stage computes.
_PLAIN_DATA = frozenset({"alignarena.core.contract", "alignarena.core.records"})


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
    """Hash the module of a class and the modules of its own package that it uses."""
    module = sys.modules.get(cls.__module__)
    if module is None or module.__name__ in _PLAIN_DATA:
        return cls.__qualname__
    text = "".join(_text(used) for used in sorted(_used(module), key=lambda used: used.__name__))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


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


@functools.cache
def _text(module: ModuleType) -> str:
    try:
        return inspect.getsource(module)
    except (OSError, TypeError):  # defined in a session without a file
        return module.__name__
