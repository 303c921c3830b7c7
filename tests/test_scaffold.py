"""A new method and its test run as they are written."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from alignarena import methods, scaffold
from alignarena.core.errors import BadInput


def _run(*command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *command], cwd=folder, capture_output=True, text=True)


def _pytest(folder: Path) -> subprocess.CompletedProcess[str]:
    return _run("pytest", "-q", "-p", "no:cacheprovider", str(folder), folder=folder)


def test_the_two_files_run_as_written(tmp_path: Path) -> None:
    for path in scaffold.new_method("my_method", tmp_path):
        assert path.parent == tmp_path
    ran = _pytest(tmp_path)
    assert ran.returncode == 0 and "1 passed" in ran.stdout, ran.stdout + ran.stderr
    rules = str(Path(__file__).parents[1] / "pyproject.toml")
    linted = _run("ruff", "check", "--config", rules, "--no-cache", ".", folder=tmp_path)
    assert linted.returncode == 0, linted.stdout


def test_the_test_of_a_new_method_fails_when_the_method_is_broken(tmp_path: Path) -> None:
    method_path, _ = scaffold.new_method("my_method", tmp_path)
    source = method_path.read_text()
    source = source.replace('pairs_of(task.preferences["overall"])', "Fixed(task.demonstrations)")
    source = source.replace("import pairs_of", "import Fixed").replace(", soft=preferences.soft", "")
    method_path.write_text(source)
    ran = _pytest(tmp_path)
    assert ran.returncode == 1 and "DPOLoss: no column chosen, rejected" in ran.stdout


def test_in_the_package_the_test_goes_beside_the_other_tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "methods"
    monkeypatch.setattr(methods, "__path__", [str(folder)])
    method_path, test_path = scaffold.new_method("my_method", folder)
    assert method_path == folder / "my_method.py"
    assert test_path == tmp_path / "tests" / "methods" / "test_my_method.py"
    assert "load_file" not in test_path.read_text()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("my-method", "not a lower-case Python name"),
        ("1st", "not a lower-case Python name"),
        ("MyMethod", "not a lower-case Python name"),
        ("class", "not a lower-case Python name"),
        ("../escape", "not a lower-case Python name"),
        ("dpo", "already registered by alignarena.methods.dpo"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=said):
        scaffold.new_method(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_no_file_is_overwritten(tmp_path: Path) -> None:
    _, test_path = scaffold.new_method("my_method", tmp_path)
    shutil.move(tmp_path / "my_method.py", tmp_path / "elsewhere.py")
    before = test_path.read_text()
    with pytest.raises(BadInput, match="exists; choose another name"):
        scaffold.new_method("my_method", tmp_path)
    assert test_path.read_text() == before and not (tmp_path / "my_method.py").exists()
