"""A newcomer's file runs beside the built-in methods, as it is written, and can be scored again by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from alignarena import cli
from alignarena.core import registry
from alignarena.core.files import read_json
from alignarena.results.store import RunFolder


def test_a_new_method_runs_as_written(
    tiny_suite_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ALIGNARENA_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    registry.load_all()
    monkeypatch.setattr(registry, "METHODS", dict(registry.METHODS))
    assert cli.main(["new-method", "newcomer"]) == 0
    argv = ["run", str(tiny_suite_file), "--out", "run", "--methods", "sft,newcomer.py"]
    assert cli.main([*argv, "--dry-run"]) == 0
    assert "newcomer" in capsys.readouterr().out and not Path("run").exists()
    assert cli.main([*argv, "--set", "method.newcomer.beta=0.2"]) == 0
    assert "newcomer" in capsys.readouterr().out
    cell = RunFolder.open("run").read_cell("newcomer", 0)
    assert cell.state == "DONE" and cell.config["beta"] == 0.2 and cell.charged.labels > 0
    noted = read_json("run/provenance.json")
    assert noted["methods"]["newcomer"]["differs"] == "everything still to be written."
    assert noted["method_files"] == [str(tmp_path / "newcomer.py")]
    del registry.METHODS["newcomer"]  # another process has not loaded the file
    assert cli.main(["score", "run", "--evaluators", "behaviour"]) == 0
