import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from alignarena.core import registry
from alignarena.core.errors import BadInput

METHOD_FILE = '''
"""Keeps the start.

Differs from the paper: nothing.
"""
from dataclasses import dataclass

from alignarena import method


@method("{name}", paper="none")
@dataclass(frozen=True)
class Keep:
    beta: float = 0.5

    def align(self, task, lab):
        return task.policy
'''.lstrip()


@pytest.fixture(autouse=True)
def _registry_as_before() -> Iterator[None]:
    registry.load_all()
    before = dict(registry.METHODS)
    yield
    registry.METHODS.clear()
    registry.METHODS.update(before)


def _write(path: Path, name: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(METHOD_FILE.format(name=name))
    return path


def test_the_built_in_methods_are_found() -> None:
    assert {"base", "sft", "best_of_n", "dpo", "ppo", "rejection_sampling"} <= set(registry.METHODS)


def test_every_method_has_a_paper_and_a_summary() -> None:
    for entry in registry.METHODS.values():
        assert entry.paper and entry.summary and entry.family in ("baseline", "offline", "online", "trl"), entry


def test_a_loose_file_registers_its_methods(tmp_path: Path) -> None:
    path = _write(tmp_path / "keep.py", "keep_start")
    assert registry.load_file(path) == ("keep_start",)
    assert registry.load_file(path) == ("keep_start",), "a second time is no duplicate"
    entry = registry.find("keep_start")
    assert entry.summary == "Keeps the start."
    assert entry.hyperparameters() == {"beta": 0.5}


def test_loose_files_of_one_stem_do_not_replace_each_other(tmp_path: Path) -> None:
    registry.load_file(_write(tmp_path / "a" / "keep.py", "keep_a"))
    registry.load_file(_write(tmp_path / "b" / "keep.py", "keep_b"))
    assert registry.find("keep_a").module != registry.find("keep_b").module


def test_a_key_taken_twice_names_who_has_it(tmp_path: Path) -> None:
    path = _write(tmp_path / "mine.py", "dpo")
    for _ in range(2):  # a refused file is not remembered as loaded
        with pytest.raises(BadInput, match=r"'dpo' is already registered by alignarena\.methods\.dpo"):
            registry.load_file(path)


def test_two_classes_of_one_file_cannot_share_a_key(tmp_path: Path) -> None:
    path = _write(tmp_path / "twice.py", "twice")
    text = path.read_text()
    path.write_text(text + text[text.index("@method") :].replace("class Keep", "class Again"))
    with pytest.raises(BadInput, match="'twice' is already registered"):
        registry.load_file(path)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def broken(:", "cannot be imported: SyntaxError"),
        ("import no_such_module", "cannot be imported: ModuleNotFoundError: No module named 'no_such_module'"),
        ("x = 1", "registers no method"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path: Path, source: str, message: str) -> None:
    path = tmp_path / "broken.py"
    path.write_text(source)
    with pytest.raises(BadInput, match=message) as caught:
        registry.load_file(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="does not exist"):
        registry.load_file(tmp_path / "none.py")


def test_an_unknown_method_names_the_nearest() -> None:
    with pytest.raises(BadInput, match="unknown method 'dpoo'; did you mean 'dpo'"):
        registry.find("dpoo")


def _install(target: Path, source: str, value: str) -> None:
    """Lay down what pip leaves of a package with an entry point: its module and its .dist-info."""
    (target / "their_methods.py").write_text(source)
    info = target / "their_methods-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-methods\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[alignarena.methods]\ntheirs = {value}\n")


def _find_in_new_process(target: Path) -> subprocess.CompletedProcess[str]:
    code = """
        from alignarena.core.errors import AlignArenaError
        from alignarena.core.registry import find
        try:
            print(find("theirs").summary)
        except AlignArenaError as error:
            print(error)
    """
    environment = {**os.environ, "PYTHONPATH": str(target)}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=True)


@pytest.mark.parametrize("value", ["their_methods", "their_methods:Keep"])
def test_another_package_registers_through_its_entry_point(tmp_path: Path, value: str) -> None:
    _install(tmp_path, METHOD_FILE.format(name="theirs"), value)
    assert _find_in_new_process(tmp_path).stdout == "Keeps the start.\n"


def test_a_package_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    _install(tmp_path, "import no_such_module", "their_methods")
    said = _find_in_new_process(tmp_path).stdout
    assert "entry point 'theirs' of their-methods cannot be loaded" in said and "uninstall" in said
