"""Suite files into plain values that remember where each came from, so that an error names file, line and key.

A file with ``variants`` is a study; ``STUDY/VARIANT`` names one of them, which is an ordinary suite.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from alignarena.core.errors import BadInput, nearest

SUITES = Path(__file__).parent / "suites"
_OF_THE_STUDY = ("extends", "name", "variants")  # what its variants have in common by definition
_TAKEN = ("report", "..", ".")  # what a study's folder holds beside its variants, and what is no folder in it
_YAML = "tag:yaml.org,2002:"  # tags of plain YAML; any other is left to the safe loader, which refuses it


@dataclass
class SuiteValues:
    """Plain nested values, and for each dotted path the place that set it: ``file:line`` or ``--set key``."""

    values: dict[str, Any]
    origins: dict[str, str]  # the path "" is the file itself
    variant: str = ""  # of a study, where these are one's values

    def merge(self, other: SuiteValues) -> None:
        """Lay other values over these: sections key by key, everything else as a whole."""
        _merge(self.values, other.values)
        self.origins.update(other.origins)

    @property
    def variants(self) -> list[str]:
        """The variants of a study, in the file's order; none for an ordinary suite.

        Raises:
            BadInput: ``variants`` is not a mapping of folder names to the suite keys that differ.
        """
        if "variants" not in self.values:
            return []
        variants, where = self.values["variants"], self.origins["variants"]
        if not isinstance(variants, dict) or not variants:
            raise BadInput(f"{where}: variants: expected a mapping of names to the suite keys that differ")
        for name, differing in variants.items():
            self._check_variant(name, differing)
        return list(variants)

    def _check_variant(self, name: str, differing: Any) -> None:
        path = f"variants.{name}"
        where = self.origins[path]
        if not re.fullmatch(r"[\w.-]+", name) or name in _TAKEN:
            raise BadInput(f"{where}: {path}: cannot be the name of a folder; use letters, digits, '_', '-' and '.'")
        if not isinstance(differing, dict | None):
            raise BadInput(f"{where}: {path}: expected a mapping of the suite keys that differ, got {differing!r}")
        for key in _OF_THE_STUDY:
            if key in (differing or {}):
                raise BadInput(f"{self.origins[f'{path}.{key}']}: {path}.{key}: belongs to the study, not to a variant")

    def of_variant(self, name: str) -> SuiteValues:
        """Return the suite that a variant is: the study's values under its own.

        Raises:
            BadInput: This is no study, or it has no such variant.
        """
        if not self.variants:
            raise BadInput(f"{self.origins['']}: the suite has no variants, so {name!r} cannot be one of them")
        if name not in self.variants:
            raise BadInput(f"{self.origins['variants']}: no variant {name!r}{nearest(name, self.variants)}")
        path = f"variants.{name}."
        own = {place.removeprefix(path): line for place, line in self.origins.items() if place.startswith(path)}
        shared = {key: value for key, value in self.values.items() if key != "variants"}
        origins = {place: line for place, line in self.origins.items() if place.partition(".")[0] != "variants"}
        suite = SuiteValues(shared, origins, name)
        suite.merge(SuiteValues(self.values["variants"][name] or {}, own))
        return suite

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
        variant = f"variant {self.variant}: " if self.variant else ""
        return BadInput(f"{self.origins[best[2]]}: {variant}{text}")


def read_suite_values(name_or_path: str) -> SuiteValues:
    """Read a suite file, and under it the one that it extends.

    Args:
        name_or_path: A built-in name or the path of a YAML file; behind a study's, ``/VARIANT`` names one of its own.

    Raises:
        BadInput: No such suite or variant, or a file that is not a YAML mapping.
    """
    return _read_extending(*_find(name_or_path, Path()), ())


def variants_of(name_or_path: str) -> list[str]:
    """Return the names of a study's variants, in the file's order; none for an ordinary suite.

    Raises:
        BadInput: As :func:`read_suite_values`, or variants that are wrong in themselves.
    """
    return read_suite_values(name_or_path).variants


def _find(name: str, folder: Path) -> tuple[Path, str]:
    """Return the file of a suite, and the variant that is meant of a study."""
    study, _, variant = name.rpartition("/")
    for suite, one in ((name, ""), (study, variant)) if variant else ((name, ""),):
        built_in, path = SUITES / f"{suite}.yaml", folder / Path(suite).expanduser()
        if re.fullmatch(r"[\w-]+", suite) and built_in.is_file():
            return built_in, one
        if path.is_file():
            return path, one
    if name.endswith((".yaml", ".yml")) or "/" in name:
        raise BadInput(f"suite file {folder / Path(name).expanduser()} does not exist")
    names = [file.stem for file in SUITES.glob("*.yaml")]
    raise BadInput(f"unknown suite {name!r}{nearest(name, names)}; or give the path of a .yaml file")


def _read_extending(path: Path, variant: str, children: tuple[Path, ...]) -> SuiteValues:
    values = _read(path)
    parent_name = values.values.pop("extends", None)
    values.values.setdefault("name", path.stem)
    if parent_name is not None:
        parent = _read_parent(path, parent_name, values.origins["extends"], children)
        parent.merge(values)
        values = parent
    return values.of_variant(variant) if variant else values


def _read_parent(path: Path, name: Any, where: str, children: tuple[Path, ...]) -> SuiteValues:
    if not isinstance(name, str):
        raise BadInput(f"{where}: extends: expected the name or path of a suite, got {name!r}")
    try:
        parent, variant = _find(name, path.parent)
    except BadInput as error:
        raise BadInput(f"{where}: extends: {error}") from None
    if parent.resolve() in (path.resolve(), *children):
        raise BadInput(f"{where}: extends: {name!r} extends this file in turn; remove one of the two")
    found = _read_extending(parent, variant, (*children, path.resolve()))
    return SuiteValues(found.values, found.origins)  # what extends a variant is none itself


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
