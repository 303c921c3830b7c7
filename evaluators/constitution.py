"""Constitutions: principles in YAML files that anybody may edit, and drawing one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from alignarena.core.config import build
from alignarena.core.contract import Lab, Principle
from alignarena.core.errors import BadInput, nearest

BUILT_IN = Path(__file__).parent / "constitutions"
_EXAMPLE = "principles: [{critique_request: ..., revision_request: ..., comparison: ...}]"


def read_constitution(name_or_path: str) -> tuple[Principle, ...]:
    """Return the principles of a built-in constitution (``harmless``, ``positive``) or of a YAML file.

    Raises:
        BadInput: No such file, or one that holds no principles; names the file and the line.
    """
    path = _found(name_or_path)
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8-sig"))
        root = loader.get_single_node()
        items = _items(root, path)
        return tuple(_principle(loader.construct_object(item, deep=True), _line(item, path)) for item in items)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise BadInput(f"{path}{line}: not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError) as error:  # text that is not UTF-8 is a ValueError
        raise BadInput(f"{path}: not valid YAML: {error}") from None
    except OSError as error:
        raise BadInput(f"constitution {path} cannot be read: {error.strerror}") from None


def draw(principles: tuple[Principle, ...], lab: Lab, *names: object) -> Principle:
    """Return one of the principles, each as probable, by a generator of its own for the names."""
    return principles[int(lab.random("principle", *names).integers(len(principles)))]


def check(principle: Principle, where: str = "") -> None:
    """Check that a principle says what to look for and what to do about it.

    Raises:
        BadInput: A request is empty; the message begins with ``where``.
    """
    for name in ("critique_request", "revision_request"):
        if not getattr(principle, name).strip():
            raise BadInput(f"{where}{name} is empty; say what to look for, and what to do about it")


def _found(name_or_path: str) -> Path:
    built_in, path = BUILT_IN / f"{name_or_path}.yaml", Path(name_or_path).expanduser()
    if built_in.parent == BUILT_IN and built_in.is_file():
        return built_in
    if path.suffix not in (".yaml", ".yml") and not path.exists():
        names = [file.stem for file in BUILT_IN.glob("*.yaml")]
        raise BadInput(f"unknown constitution {name_or_path!r}{nearest(name_or_path, names)}; or give the path of a "
                       ".yaml file")  # fmt: skip
    return path


def _items(root: yaml.Node | None, path: Path) -> list[yaml.Node]:
    """Return the nodes of the principles."""
    pairs = root.value if isinstance(root, yaml.MappingNode) else []
    keys = [key.value for key, _ in pairs]
    if keys != ["principles"]:
        raise BadInput(f"{path}:1: a constitution has the key 'principles' alone, as in {_EXAMPLE}")
    (_, items), = pairs
    if not isinstance(items, yaml.SequenceNode) or not items.value:
        raise BadInput(f"{_line(items, path)}: principles: expected a list of at least one, as in {_EXAMPLE}")
    return list(items.value)


def _principle(value: Any, where: str) -> Principle:
    try:
        principle = build(Principle, value)
        check(principle)
    except BadInput as error:
        raise BadInput(f"{where}: {str(error).removeprefix(': ')}") from None
    return principle


def _line(node: yaml.Node, path: Path) -> str:
    return f"{path}:{node.start_mark.line + 1}"
