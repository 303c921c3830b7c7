"""Stages of one cell: computed once, whoever else looks for them."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from alignarena.core.records import Ledger
from alignarena.harness import memo
from alignarena.harness.cache import Cache
from alignarena.harness.memo import Account, Memo

RECORD = {"verb": "fit", "stage": "fit", "ledger": Ledger(labels=3).to_dict()}


def process(cache: Cache, first: bool) -> Memo:
    """Return one of two processes that compute together."""
    both: Any = SimpleNamespace(is_main_process=first, num_processes=2, wait_for_everyone=lambda: None)
    return Memo(cache, both, Account())


def stage(of: Memo, compute: Callable[[Path], None] = lambda folder: pytest.fail("computed again")) -> Path:
    return of.stage("fit", "fit", "k", compute, lambda folder: folder)


def test_two_launches_of_several_processes_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Any] = []
    monkeypatch.setattr(memo, "broadcast_object_list", said.extend)
    monkeypatch.setattr(memo, "_PATIENCE", 0.01)
    cache = Cache(tmp_path)
    here = process(cache, first=True)
    with ThreadPoolExecutor(1) as pool:
        with cache.lock("k"):  # by the other launch
            found = pool.submit(stage, here)
            while len(said) < 3 and not found.done():
                continue
            cache.put("k", RECORD, lambda folder: None)
        assert found.result(10) == cache.path("k")
    assert said[:3] == [None, False, False] and said[-2:] == [True, RECORD]  # the others hear that they wait
    assert (here.account.charged.labels, here.account.spent.labels) == (3, 0)


def test_the_first_process_alone_takes_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = iter([None, False, True, RECORD])
    monkeypatch.setattr(memo, "broadcast_object_list", lambda found: found.__setitem__(0, next(heard)))
    other = process(Cache(tmp_path), first=False)
    assert stage(other) == tmp_path / "k"
    assert other.account.charged.labels == 3
    assert not list(tmp_path.iterdir())
