"""Training curves for people's trackers: what metrics.jsonl holds, sent when a cell has ended. Never a login."""

from __future__ import annotations

import importlib.util
import math
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.tracking import TensorBoardTracker, TrackioTracker, WandBTracker

from alignarena.benchmarks.suite import ReportTo
from alignarena.core.errors import BadInput


def check_tracker(report_to: ReportTo) -> None:
    """Find out before a run whether its tracker is there.

    Raises:
        BadInput: The package of that name is not installed.
    """
    if report_to != "none" and importlib.util.find_spec(report_to) is None:
        raise BadInput(f"report_to: {report_to} is not installed; pip install {report_to}, or set report_to to none")


def report_curves(
    report_to: ReportTo, suite: str, cell: str, metrics: Iterable[Mapping[str, Any]], run_dir: Path
) -> None:
    """Send the training curves of a cell to a tracker, each line of metrics.jsonl as one step, in order.

    A tracker that fails costs a line on stderr.

    Args:
        report_to: Where to; ``none`` does nothing.
        suite: The suite's name: the project of trackers that have such.
        cell: ``METHOD/SEED``: the name of the tracker's run.
        metrics: The lines of metrics.jsonl.
        run_dir: The run folder. TensorBoard's files go to ``tensorboard/METHOD/SEED`` in it, wandb's to ``wandb``.
    """
    if report_to == "none":
        return
    PartialState()  # accelerate's trackers ask it which process this is
    try:
        _send(_tracker(report_to, suite.replace("/", "-"), cell, run_dir), metrics)
    except Exception as error:  # whatever a tracker raises, the cell has its results
        print(f"{cell}: curves not sent to {report_to}: {error}", file=sys.stderr)


def _send(tracker: Any, metrics: Iterable[Mapping[str, Any]]) -> None:
    tracker.start()
    try:
        for step, row in enumerate(metrics):
            tracker.log(dict(_numbers(row)), step=step)
    finally:
        tracker.finish()


def _tracker(report_to: ReportTo, project: str, cell: str, run_dir: Path) -> Any:
    if report_to == "tensorboard":
        folder = run_dir / "tensorboard"
        shutil.rmtree(folder / cell, ignore_errors=True)  # a cell that is run again replaces its curves
        return TensorBoardTracker(cell, folder)
    if report_to == "wandb":
        mode = os.environ.get("WANDB_MODE", "offline")  # online would ask who one is
        return WandBTracker(project, name=cell, dir=str(run_dir), mode=mode, settings={"silent": True})
    return TrackioTracker(project, name=cell)


def _numbers(row: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield a line's finite numbers, each under the loss that it is of: two fits share no curve."""
    for name, value in row.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            yield f"{row.get('loss_name', 'training')}/{name}", value
