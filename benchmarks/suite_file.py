"""Suite files into plain values that remember where each came from, so that an error names file, line and key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from alignarena.core.errors import BadInput, nearest

SUITES = Path(__file__).parent / "suites"
_YAML = "tag:yaml.org,2002:"  # tags of plain YAML; any other is left to the safe loader, which refuses it


@dataclass
class SuiteValues:
    """Plain nested values, and for each dotted path the place that set it: ``file:line`` or ``--set key``."""

    values: dict[str, Any]
    origins: dict[str, str]  # the path "" is the file itself

    def merge(self, other: SuiteValues) -> None:
        """Lay other values over these: sections key by key, everything else as a whole."""
        _merge(self.values, other.values)
        self.origins.update(other.origins)

    def override(self, key: str, value: Any) -> None:
        """Set one value by its dotted path; ``method.X.field`` means ``methods.X.field``.

        Args:
            key: The path, such as ``sft.learning_rate``.
            value: Text is read as YAML, as ``--set`` gives it; anything else is taken as it is.

        Raises:
            BadInput: The path leads through a plain value, or the text is not YAML.
        """
        parts = ["methods", *key.split(".")[1:]] if key.split(".")[0] == "method" else key.split(".")
        if not all(parts):
            raise BadInput(f"--set {key}: expected a path such as sft.learning_rate or method.dpo.beta")
        section = self.values
        for depth, part in enumerate(parts[:-1], 1):
            if section.get(part) is None:
                section[part] = {}
                self.origins[".".join(parts[:depth])] = f"--set {key}"
            section = section[part]
            if not isinstance(section, dict):
                raise BadInput(f"--set {key}: {'.'.join(parts[:depth])} is a value, not a section")
        try:
            section[parts[-1]] = yaml.safe_load(value) if isinstance(value, str) else value
        except (yaml.YAMLError, ValueError):
            raise BadInput(f"--set {key}: {value!r} is not a YAML value; quote it") from None
        path = ".".join(parts)
        self.origins = {
            known: place for known, place in self.origins.items() if not known.startswith((f"{path}.", f"{path}["))
        }
        self.origins[path] = f"--set {key}"

    def located(self, error: BadInput) -> BadInput:
        """Return the error with the place of the dotted path it names first, the longest such path where several do."""
        text, best = str(error), (len(str(error)), 0, "")
        for path in self.origins:
            found = re.search(rf"(?<![\w.]){re.escape(path)}(?!\w)", text) if path else None
            if found:
                best = min(best, (found.start(), -len(path), path))
        return BadInput(f"{self.origins[best[2]]}: {text}")


def read_suite_values(name_or_path: str) -> SuiteValues:
    """Read a suite file, and under it the one that it extends.

    Raises:
        BadInput: No such suite, or a file that is not a YAML mapping.
    """
    return _read_extending(_find(name_or_path, Path()), ())


def _find(name: str, folder: Path) -> Path:
    built_in = SUITES / f"{name}.yaml"
    if re.fullmatch(r"[\w-]+", name) and built_in.is_file():
        return built_in
    path = folder / Path(name).expanduser()
    if path.is_file():
        return path
    if path.suffix in (".yaml", ".yml") or "/" in name:
        raise BadInput(f"suite file {path} does not exist")
    names = [file.stem for file in SUITES.glob("*.yaml")]
    raise BadInput(f"unknown suite {name!r}{nearest(name, names)}; or give the path of a .yaml file")


def _read_extending(path: Path, children: tuple[Path, ...]) -> SuiteValues:
    own = _read(path)
    parent_name = own.values.pop("extends", None)
    own.values.setdefault("name", path.stem)
    if parent_name is None:
        return own
    where = own.origins["extends"]
    if not isinstance(parent_name, str):
        raise BadInput(f"{where}: extends: expected the name or path of a suite, got {parent_name!r}")
    try:
        parent_path = _find(parent_name, path.parent)
    except BadInput as error:
        raise BadInput(f"{where}: extends: {error}") from None
    if parent_path.resolve() in (path.resolve(), *children):
        raise BadInput(f"{where}: extends: {parent_name!r} extends this file in turn; remove one of the two")
    values = _read_extending(parent_path, (*children, path.resolve()))
    values.merge(own)
    return values


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> None:
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = value


def _read(path: Path) -> SuiteValues:
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8-sig"))
        node = loader.get_single_node()
        origins = {"": str(path)}
        values = {} if node is None else _plain(loader, node, "", origins, ())
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise BadInput(f"{path}{line}: not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError) as error:  # text that is not UTF-8 is a ValueError
        raise BadInput(f"{path}: not valid YAML: {error}") from None
    except OSError as error:
        raise BadInput(f"suite file {path} cannot be read: {error.strerror}") from None
    if not isinstance(values, dict) or not values:
        raise BadInput(f"{path}: a suite is a mapping of keys such as data and methods; this file has none")
    return SuiteValues(values, origins)


def _plain(
    loader: yaml.SafeLoader, node: yaml.Node, where: str, origins: dict[str, str], parents: tuple[yaml.Node, ...]
) -> Any:
    """Turn a node into plain values, recording the line of every dotted path."""
    line = f"{origins['']}:{node.start_mark.line + 1}"
    if node in parents:
        raise BadInput(f"{line}: the anchor contains itself")
    if isinstance(node, yaml.SequenceNode) and node.tag == f"{_YAML}seq":
        items = []
        for index, item in enumerate(node.value):
            origins[f"{where}[{index}]"] = f"{origins['']}:{item.start_mark.line + 1}"
            items.append(_plain(loader, item, f"{where}[{index}]", origins, (*parents, node)))
        return items
    if not isinstance(node, yaml.MappingNode) or node.tag != f"{_YAML}map":
        return loader.construct_object(node, deep=True)
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = key_node.value
        line = f"{origins['']}:{key_node.start_mark.line + 1}"
        if key_node.tag != f"{_YAML}str":
            raise BadInput(f"{line}: the key {key!r} is not text; put it in quotes")
        if key in values:
            raise BadInput(f"{line}: the key {key!r} is given twice; remove one")
        path = f"{where}.{key}" if where else key
        origins[path] = line
        values[key] = _plain(loader, value_node, path, origins, (*parents, node))
    return values
