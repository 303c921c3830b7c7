"""What a cell has bought: stages that are metered, done once, and charged to every cell that uses them.

A hit charges what the work cost when it was done, so a method pays the same whether it runs first or last.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from alignarena.core.contract import TrainablePolicy
from alignarena.core.records import Ledger
from alignarena.harness.cache import Cache
from alignarena.harness.meter import Meter

# Seconds that the first process waits for a lock without a word: the others give a broadcast up after some minutes.
_PATIENCE = 60.0
_ON_RECORD = ("dropped", "stopped", "met")  # what a stage has in a cell's account beside its ledger
Result = TypeVar("Result")
Compute = Callable[[Path], None]  # does the work of a stage and writes its result into a folder


@dataclass
class Account:
    """What one cell was charged, what the machine really spent on it, and by which stages."""

    charged: Ledger = field(default_factory=Ledger)
    spent: Ledger = field(default_factory=Ledger)
    stages: list[dict[str, Any]] = field(default_factory=list)
    notes: list[dict[str, float]] = field(default_factory=list)  # what methods recorded, in order
    last_policy: TrainablePolicy | None = None  # what a method has when its budget ends
    used_up: bool = False  # whether a verb was refused for the budget's sake
    lineage: set[str] = field(default_factory=set)  # the root scorers and the writers of what was trained on
    owed: dict[str, Ledger] = field(default_factory=dict)  # what a policy cost that was made before this cell

    def enter(self, key: str, record: Mapping[str, Any], hit: bool) -> None:
        """Charge a stage, once however often it is used: what a cell has bought is its own."""
        ledger = Ledger.from_dict(record["ledger"])
        if all(stage["key"] != key for stage in self.stages):
            self.charged = self.charged + ledger
        if not hit:
            self.spent = self.spent + ledger
        noted = {name: record[name] for name in _ON_RECORD if name in record}
        self.stages.append({"verb": record["verb"], "stage": record["stage"], "key": key, "hit": hit,
                            "ledger": ledger.to_dict(), **noted})  # fmt: skip


class Memo:
    """The stages of one cell, through a cache that all cells share.

    Args:
        cache: Where stages are kept.
        accelerator: Which processes compute together.
        account: Who pays.
    """

    def __init__(self, cache: Cache, accelerator: Accelerator, account: Account) -> None:
        self.cache, self.accelerator, self.account = cache, accelerator, account
        self.meter: Meter | None = None  # set inside a stage: what is done there is metered, not memoised

    @property
    def metered(self) -> Meter:
        """The meter of the stage under way."""
        assert self.meter is not None, "work is metered inside a verb only"
        return self.meter

    def stage(self, verb: str, name: str, key: str, compute: Compute, read: Callable[[Path], Result]) -> Result:
        """Return what ``read`` finds in the folder of a stage, which is computed if no cell has done so."""
        if self.meter is not None:
            raise RuntimeError(f"{verb} inside another verb: only rows may be drawn there")
        record = self._agreed(key)
        hit = record is not None
        if record is None:
            record, hit = self._computed(key, verb, name, compute)
        self.account.enter(key, {**record, "verb": verb, "stage": name}, hit)
        return read(self.cache.path(key))

    def _agreed(self, key: str) -> dict[str, Any] | None:
        """Look a stage up; with several processes the first one's answer holds for all."""
        record: dict[str, Any] | None = self._told(lambda: self.cache.record(key))
        return record

    def _told(self, ask: Callable[[], Any]) -> Any:
        """Return what the first process finds, in all of them."""
        found = [ask() if self.accelerator.is_main_process else None]
        if self.accelerator.num_processes > 1:
            broadcast_object_list(found)
        return found[0]

    def _computed(self, key: str, verb: str, name: str, compute: Compute) -> tuple[dict[str, Any], bool]:
        """Return the record of a stage, and whether another launch finished it while this one waited."""
        with self._in_turn(key):
            found = self._agreed(key)
            if found is not None:
                return found, True
            if self.accelerator.num_processes > 1:
                return self._computed_together(key, verb, name, compute), False
            return self._computed_here(key, verb, name, compute), False

    @contextmanager
    def _in_turn(self, key: str) -> Iterator[None]:
        """Hold a stage's lock in the first process; while it waits, it tells the others so."""
        with ExitStack() as held:
            while not self._told(lambda: self._got_lock(held, key)):
                continue
            yield

    def _got_lock(self, held: ExitStack, key: str) -> bool:
        try:
            held.enter_context(self.cache.lock(key, _PATIENCE))
        except TimeoutError:
            return False
        return True

    def _computed_here(self, key: str, verb: str, name: str, compute: Compute) -> dict[str, Any]:
        self.meter = meter = Meter()
        record: dict[str, Any] = {"verb": verb, "stage": name}

        def write(folder: Path) -> None:
            with meter.timed():
                compute(folder)
            record["ledger"], record["met"] = meter.ledger.to_dict(), dict(+meter.met)
            if (folder / "fit.json").is_file():
                record.update(json.loads((folder / "fit.json").read_text()))

        try:
            self.cache.put(key, record, write)
        finally:
            self.meter = None
        return record

    def _computed_together(self, key: str, verb: str, name: str, compute: Compute) -> dict[str, Any]:
        """Every process computes its share; the first one publishes the result, the others read it."""
        if self.accelerator.is_main_process:
            self._computed_here(key, verb, name, compute)
        else:
            self.meter = Meter()
            try:
                compute(Path())  # only the first process writes
            finally:
                self.meter = None
        self.accelerator.wait_for_everyone()
        record = self._agreed(key)
        assert record is not None
        return record
