"""Where methods are found by name: files in methods/, loose files, and the entry-point group ``alignarena.methods``."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from alignarena.core.contract import Method
from alignarena.core.errors import BadInput, nearest

ENTRY_POINT_GROUP = "alignarena.methods"


@dataclass(frozen=True)
class MethodEntry:
    """A registered method: its key, what builds it, and where it comes from."""

    name: str
    build: Callable[..., Method]
    paper: str
    family: str
    module: str
    informed: bool = False

    @property
    def summary(self) -> str:
        """First line of the docstring: a variant's own, of a function; else its module's, else the method's."""
        module_doc = (sys.modules[self.module].__doc__ or "") if self.module in sys.modules else ""
        own = inspect.getdoc(self.build) or ""
        described = module_doc or own if inspect.isclass(self.build) else own or module_doc
        return described.strip().partition("\n")[0]

    def hyperparameters(self) -> dict[str, Any]:
        """Return field names and defaults."""
        built = self.build()
        if not dataclasses.is_dataclass(built):
            return {}
        return {f.name: getattr(built, f.name) for f in dataclasses.fields(built)}


METHODS: dict[str, MethodEntry] = {}
Build = TypeVar("Build", bound=Callable[..., Any])


def method(name: str, *, paper: str, family: str = "", informed: bool = False) -> Callable[[Build], Build]:
    """Register a method under a key: a frozen dataclass, or a function that returns one.

    Args:
        name: The key used on the command line, in files and in tables.
        paper: Where the method is defined, as ``arXiv:NNNN.NNNNN`` or an address.
        family: ``baseline``, ``offline``, ``online`` or ``trl``, for `alignarena list methods`.
        informed: Whether it is told in words what is wanted (the task's goal, grades, AI labeler, reviser or
            principles), which the report keeps apart from learning by comparisons alone. The conformance check knows.

    Raises:
        BadInput: Something else already registered the key.
    """

    def register(build: Build) -> Build:
        known = METHODS.get(name)
        defined_at = (build.__module__, build.__qualname__)
        if known is not None and (known.module, known.build.__qualname__) != defined_at:
            raise BadInput(f"method {name!r} is already registered by {known.module}; choose another name")
        METHODS[name] = MethodEntry(name, build, paper, family, build.__module__, informed)
        return build

    return register


def load_file(path: str | Path) -> tuple[str, ...]:
    """Import a loose method file, which registers its methods; return their keys.

    Raises:
        BadInput: The file is missing, cannot be imported, or registers nothing.
    """
    path = Path(path).resolve()
    if not path.is_file():
        raise BadInput(f"method file {path} does not exist")
    load_all()  # first, so that a key taken twice is the loose file's fault
    # the folder is part of the name: two loose files may share a stem
    name = f"alignarena_loose_{hashlib.sha256(str(path.parent).encode()).hexdigest()[:8]}_{path.stem}"
    if not _registered_by(path):
        _execute(name, path)
    registered = _registered_by(path)
    if not registered:
        raise BadInput(f"method file {path} registers no method; decorate its class with @method(name, paper=...)")
    return registered


def _registered_by(path: Path) -> tuple[str, ...]:
    """Return the keys that a file registered, under whatever module name it was imported."""
    files = {entry.name: getattr(sys.modules.get(entry.module), "__file__", None) for entry in METHODS.values()}
    return tuple(name for name, file in files.items() if file is not None and Path(file).resolve() == path)


def _execute(name: str, path: Path) -> None:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise BadInput(f"method file {path} is not a Python file; its name must end in .py")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, BadInput) or not isinstance(error, Exception):
            raise
        raise BadInput(f"method file {path} cannot be imported: {type(error).__name__}: {error}") from error


@functools.cache
def load_all() -> None:
    """Import every built-in method file and every entry point of the group ``alignarena.methods``."""
    package = importlib.import_module("alignarena.methods")
    for module in pkgutil.iter_modules(package.__path__):
        if not module.ispkg:
            importlib.import_module(f"alignarena.methods.{module.name}")
    for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        try:
            point.load()
        except Exception as error:
            raise BadInput(
                f"entry point {point.name!r} of {point.dist and point.dist.name} cannot be loaded: {error}; "
                "fix or uninstall that package"
            ) from error


def find(name: str) -> MethodEntry:
    """Return the method registered under a key.

    Raises:
        BadInput: No such method; names the nearest.
    """
    load_all()
    if name not in METHODS:
        raise BadInput(f"unknown method {name!r}{nearest(name, METHODS)}")
    return METHODS[name]
