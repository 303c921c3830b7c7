"""Stages on disk: complete or absent."""

import errno
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from alignarena.core.errors import BadInput
from alignarena.harness.cache import Cache, cache_folder


def fill(folder: Path) -> None:
    (folder / "rows").write_text("content")


def test_a_stage_is_there_after_put_and_not_before(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "new")
    assert cache.record("k") is None
    cache.partial("k").mkdir(parents=True)
    cache.put("k", {"cost": 1}, fill)
    assert cache.record("k") == {"cost": 1}
    assert (cache.path("k") / "rows").read_text() == "content"
    assert [path.name for path in cache.root.iterdir()] == ["k"]  # no checkpoints, nothing half made


def test_a_stage_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fails(folder: Path) -> None:
        fill(folder)
        raise KeyboardInterrupt

    cache = Cache(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        cache.put("k", {}, fails)
    assert cache.record("k") is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("record", [None, "", '{"cost"'])
def test_a_half_written_stage_is_computed_again(tmp_path: Path, record: str | None) -> None:
    cache = Cache(tmp_path)
    cache.path("k").mkdir()
    if record is not None:
        (cache.path("k") / "record.json").write_text(record)
    assert cache.record("k") is None
    cache.put("k", {"cost": 1}, fill)
    assert cache.record("k") == {"cost": 1}
    assert (cache.path("k") / "rows").read_text() == "content"


def test_a_finished_stage_is_kept(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.put("k", {"cost": 1}, fill)
    cache.put("k", {"cost": 2}, fill)
    assert json.loads((cache.path("k") / "record.json").read_text()) == {"cost": 1}


def test_one_at_a_time_computes_a_stage(tmp_path: Path) -> None:
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        with Cache(tmp_path).lock("k"):
            inside += 1
            most = max(most, inside)
            threading.Event().wait(0.02)
            inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_lock_is_waited_for_no_longer_than_asked(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as other, Cache(tmp_path).lock("k"), pytest.raises(TimeoutError):
        other.submit(lambda: ExitStack().enter_context(Cache(tmp_path).lock("k", 0.01))).result(10)
    with Cache(tmp_path).lock("k", 0.01):
        pass


@pytest.mark.parametrize("root", ["file", "file/cache"])
def test_a_cache_that_cannot_be_written_is_one_clear_line(tmp_path: Path, root: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match=r"cannot write to the cache .*file.*; set ALIGNARENA_CACHE to a folder"):
        ExitStack().enter_context(Cache(tmp_path / root).lock("k"))


def test_a_full_disk_is_not_the_users_choice_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(OSError, match="No space left"):
        ExitStack().enter_context(Cache(tmp_path).lock("k"))


def test_the_cache_lies_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ALIGNARENA_CACHE", str(tmp_path))
    assert cache_folder() == Cache().root == tmp_path
    monkeypatch.delenv("ALIGNARENA_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "alignarena"
