from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from alignarena.core import files
from alignarena.core.errors import BadInput, RunFailed


def test_a_failed_write_leaves_the_old_file_and_no_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    files.atomic_write(path, "old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunFailed, match=r"a\.json: No space left on device"):
        files.atomic_write(path, "new")
    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["a.json"]


def test_the_umask_decides_who_may_read(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        files.atomic_write(tmp_path / "a", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644


@pytest.mark.parametrize("text", ["a\u2028b\x85\x0b\x1c", "a\nb\r\nc", "lone \ud83d surrogate", "\x00 \u202e"])
def test_jsonl_keeps_any_text_on_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "completions.jsonl"
    files.write_jsonl(path, [{"completion": text}, {"completion": "second"}])
    assert files.read_jsonl(path) == [{"completion": text}, {"completion": "second"}]


def test_numbers_that_are_not_finite_become_null(tmp_path: Path) -> None:
    files.write_jsonl(tmp_path / "m.jsonl", [{"loss": float("nan"), "nested": [float("inf"), 1.5]}])
    assert files.read_jsonl(tmp_path / "m.jsonl") == [{"loss": None, "nested": [None, 1.5]}]


def test_a_half_written_last_line_is_left_out_and_cut_off_before_appending(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 0}\n{"step": 1}\n{"step": 2, "lo')
    assert files.read_jsonl(path) == [{"step": 0}, {"step": 1}]
    files.append_jsonl(path, [{"step": 2}])
    assert files.read_jsonl(path) == [{"step": 0}, {"step": 1}, {"step": 2}]


def test_a_last_line_cut_inside_a_character_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 0}\n{"text": "\xe4\xbd')
    assert files.read_jsonl(path) == [{"step": 0}]


def test_a_broken_line_before_the_last_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    path.write_text('{"a": 1}\n{"a": \n{"a": 2}\n')
    with pytest.raises(BadInput, match=r"scores\.jsonl, line 2"):
        files.read_jsonl(path)


def test_absent_files_are_empty(tmp_path: Path) -> None:
    assert files.read_jsonl(tmp_path / "none.jsonl") == []
    assert files.read_json(tmp_path / "none.json", {"a": 1}) == {"a": 1}


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    for read in (files.read_json, files.read_jsonl):
        with pytest.raises(BadInput, match="run is a file and no folder; choose another"):
            read(tmp_path / "run" / "status.json")
