import importlib
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import ModuleType

import pytest
from datasets import Dataset

from alignarena.core.contract import Schedule
from alignarena.core.digest import digest


@dataclass(frozen=True)
class Setting:
    beta: float = 0.1


@dataclass(frozen=True)
class Other:
    beta: float = 0.1


class Checkpoint:
    digest = "abc"


def test_equal_content_has_one_digest() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest((1, 2)) == digest([1, 2])
    assert digest({"x", "y", "z"}) == digest({"z", "y", "x"})
    assert digest(Setting(0.1)) == digest(Setting())
    assert digest(PurePosixPath("a/b")) == digest("a/b")


def test_different_content_has_another_digest() -> None:
    values = [1, 1.5, "1", None, True, [1], {"1": 1}, Setting(), Setting(0.2), Other(), Checkpoint(), Schedule()]
    assert len({digest(value) for value in values}) == len(values)
    assert digest("a", "b") != digest("ab")
    assert digest(["a"], "b") != digest("a", ["b"])


def test_a_digest_is_the_same_in_another_process() -> None:
    code = "from alignarena.core.digest import digest; print(digest({'a', 'b', 'c'}, {'x': 1.5}))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == digest({"a", "b", "c"}, {"x": 1.5})


def test_rows_are_named_by_their_content() -> None:
    rows = Dataset.from_list([{"prompt": "x", "rank": 1}, {"prompt": "y", "rank": 2}])
    columns_swapped = Dataset.from_list([{"rank": 1, "prompt": "x"}, {"rank": 2, "prompt": "y"}])
    assert digest(rows) == digest(columns_swapped)
    assert digest(rows) == digest(rows.select([0, 1]))
    assert digest(rows) != digest(rows.select([1, 0])), "the order of rows is the order of training"
    assert digest(rows) != digest(rows.select([0]))
    assert digest(rows) != digest(rows.remove_columns("rank"))
    empty = rows.select([])
    assert digest(empty) != digest(empty.remove_columns("rank"))


@pytest.mark.parametrize("value", [lambda: 0, object(), Setting, b"bytes"])
def test_a_value_without_stable_content_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="no stable content"):
        digest(value)


def _digest_of_package(folder: Path) -> str:
    """Digest ``losses.Own(1.0)`` of the package in a folder, in a fresh process."""
    code = "from alignarena.core.digest import digest; from pack.losses import Own; print(digest(Own(1.0)))"
    # -B: a bytecode file keyed by second and size could hide an edit made within one second
    out = subprocess.run(
        [sys.executable, "-B", "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    return out.stdout.strip()


def test_an_edited_source_changes_the_digest(tmp_path: Path) -> None:
    package = tmp_path / "pack"
    package.mkdir()
    (package / "__init__.py").write_text("")
    helper = package / "helper.py"
    helper.write_text("def scale(x):\n    return x * 2\n")
    losses = package / "losses.py"
    source = textwrap.dedent("""
        from dataclasses import dataclass
        from pack.helper import scale

        @dataclass(frozen=True)
        class Own:
            beta: float

            def __call__(self, x):
                return scale(x) * self.beta
        """)
    losses.write_text(source)
    first = _digest_of_package(tmp_path)
    assert _digest_of_package(tmp_path) == first
    losses.write_text(source.replace("* self.beta", "+ self.beta"))
    assert _digest_of_package(tmp_path) != first, "the class's own module"
    losses.write_text(source)
    assert _digest_of_package(tmp_path) == first
    helper.write_text("def scale(x):\n    return x * 3\n")
    assert _digest_of_package(tmp_path) != first, "a module that it uses"


def _digest_in(folder: Path, code: str) -> str:
    """Digest ``Own(1.0)`` of a program in a folder, in a fresh process."""
    program = f"{textwrap.dedent(code)}\nfrom alignarena.core.digest import digest; print(digest(Own(1.0)))"
    out = subprocess.run([sys.executable, "-B", "-c", program], cwd=folder, capture_output=True, text=True, check=True)
    return out.stdout.strip()


def test_an_edited_base_changes_the_digest(tmp_path: Path) -> None:
    for name in ("lib", "mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
    base, used = tmp_path / "lib" / "base.py", tmp_path / "lib" / "used.py"
    source = "from lib.used import scale\n\nclass Base:\n    def __call__(self, x):\n        return scale(x)\n"
    base.write_text(source)
    used.write_text("def scale(x):\n    return x\n")
    (tmp_path / "mine" / "own.py").write_text(
        "from dataclasses import dataclass\nimport lib.base\n\n"
        "@dataclass(frozen=True)\nclass Own(lib.base.Base):\n    beta: float\n"
    )
    program = "from mine.own import Own"
    first = _digest_in(tmp_path, program)
    assert _digest_in(tmp_path, program) == first
    base.write_text(source.replace("scale(x)", "-scale(x)"))
    assert _digest_in(tmp_path, program) != first, "the base's module"
    base.write_text(source)
    used.write_text("def scale(x):\n    return 2 * x\n")
    assert _digest_in(tmp_path, program) != first, "a module that the base's uses"


def test_a_reload_changes_the_digest_and_an_edit_alone_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    file = tmp_path / "edited_while_it_runs.py"
    source = "from dataclasses import dataclass\n\n@dataclass(frozen=True)\nclass Own:\n    beta: float = 1.0\n"
    file.write_text(source)
    module = importlib.import_module(file.stem)
    first = digest(module.Own())
    file.write_text(source + "    gamma = 2\n")
    assert digest(module.Own()) == first, "what runs is what was loaded"
    importlib.reload(module)
    assert digest(module.Own()) != first
    file.write_text(source)
    importlib.reload(module)
    assert digest(module.Own()) == first


NOTEBOOK = """
    from dataclasses import dataclass
    from functools import cache, cached_property
    from alignarena.core.contract import Loss

    POWER = 2

    @cache
    def scale(x, by=3):
        return [by * one if one in {"a", "b", "c"} else one for one in x]

    @dataclass(frozen=True)
    class Base(Loss):
        beta: float
        per = "row"

        @property
        def needs(self):
            return frozenset({"reference"})

        @cached_property
        def half(self):
            return self.beta / 2

    @dataclass(frozen=True)
    class Own(Base):
        def __call__(self, x):
            return super().__hash__() + scale(x) + self.half**POWER
    """


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("super().__hash__() + scale(x)", "super().__hash__() - scale(x)", "its own function"),
        ("self.beta / 2", "self.beta / 3", "a constant of its base"),
        ('frozenset({"reference"})', "frozenset()", "a property"),
        ('per = "row"', 'per = "token"', "a class constant"),
        ("by * one if", "by + one if", "a function that it uses"),
        ("by=3", "by=4", "a default of that"),
        ("POWER = 2", "POWER = 3", "a global that it reads"),
        ('"c"}', '"d"}', "a constant set"),
    ],
)
def test_an_edit_in_a_notebook_changes_the_digest(tmp_path: Path, old: str, new: str, what: str) -> None:
    assert old in NOTEBOOK
    assert _session(NOTEBOOK) == _session(NOTEBOOK)
    assert _session(NOTEBOOK.replace(old, new)) != _session(NOTEBOOK), what


def test_a_notebook_class_has_one_digest_in_every_process_and_however_often_it_ran(tmp_path: Path) -> None:
    first = _digest_in(tmp_path, NOTEBOOK)
    assert _digest_in(tmp_path, NOTEBOOK) == first
    warm = textwrap.dedent(NOTEBOOK) + "for _ in range(100): scale('abc'); Own(1.0).half\n"
    assert _digest_in(tmp_path, warm) == first


def test_what_a_notebook_class_cannot_be_named_by_is_refused() -> None:
    with pytest.raises(TypeError, match="no stable content"):
        _session(NOTEBOOK.replace("POWER = 2", "POWER = object()"))


def _session(code: str) -> str:
    """Digest ``Own(1.0)`` of a session whose module has no file, as a notebook's."""
    name = "a_session"
    sys.modules[name] = module = ModuleType(name)
    try:
        exec(textwrap.dedent(code), module.__dict__)
        return digest(module.Own(1.0))
    finally:
        del sys.modules[name]
