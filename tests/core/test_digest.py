import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

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
