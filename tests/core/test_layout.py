"""What the tree promises: links resolve, imports have one spelling, a method's three files share a stem."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINKED = ("methods", "benchmarks", "evaluators", "results", "reports")
NOT_FOR_METHODS = {"torch", "transformers", "trl", "peft", "accelerate"}


def _sources() -> Iterator[Path]:
    for folder in ("alignarena", "tests", *LINKED):
        yield from (ROOT / folder).rglob("*.py")


def _imported(path: Path) -> Iterator[str]:
    """Yield the dotted names that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module


def _method_files() -> list[Path]:
    return sorted(path for path in (ROOT / "methods").glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("name", LINKED)
def test_each_package_is_a_link_to_its_folder(name: str) -> None:
    link = ROOT / "alignarena" / name
    assert link.is_symlink() and link.readlink() == Path("..") / name
    assert link.resolve() == ROOT / name and (link / "__init__.py").is_file()


def test_no_file_imports_a_folder_by_its_bare_name() -> None:
    wrong = {str(path): name for path in _sources() for name in _imported(path) if name.partition(".")[0] in LINKED}
    assert not wrong


def test_methods_are_prose_without_a_tensor_library() -> None:
    assert _method_files()
    wrong = [
        (path.name, name)
        for path in _method_files()
        for name in _imported(path)
        if name.partition(".")[0] in NOT_FOR_METHODS or name.startswith("alignarena.harness")
    ]
    assert not wrong


@pytest.mark.parametrize("path", _method_files(), ids=lambda path: path.stem)
def test_a_method_has_a_test_and_a_page_of_its_name(path: Path) -> None:
    assert (ROOT / "tests" / "methods" / f"test_{path.stem}.py").is_file()
    assert (ROOT / "docs" / "methods" / f"{path.stem}.md").is_file()


@pytest.mark.parametrize("path", _method_files(), ids=lambda path: path.stem)
def test_a_method_registers_under_the_name_of_its_file(path: Path) -> None:
    if path.stem == "arms":  # compositions of other methods, each under a name that says which
        return
    assert f'@method("{path.stem}' in path.read_text()  # or, of a family of them, names that begin with it
