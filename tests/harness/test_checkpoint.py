"""A fit that was stopped goes on to the same end: the same weights, the same log, the same bill."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import toy_task

from alignarena.core.contract import Schedule
from alignarena.core.records import Ledger
from alignarena.harness import checkpoint
from alignarena.harness.checkpoint import Checkpoint
from alignarena.harness.lab import HarnessLab
from alignarena.harness.trainer import Fit
from alignarena.methods.parts.demonstrations import WithDemonstrations
from alignarena.methods.parts.experience import Fixed, Rollouts, ScoredBy
from alignarena.methods.parts.losses import DPOLoss, SFTLoss
from alignarena.methods.parts.policy_gradient import PPOLoss
from alignarena.methods.parts.reward_losses import KWiseRewardLoss
from alignarena.methods.parts.rows import pairs

NewLab = Callable[..., HarnessLab]
SCHEDULE = Schedule(learning_rate=1e-2, batch_size=4, num_train_epochs=2, lr_scheduler_type="linear", weight_decay=0.1)


def rollouts(lab: HarnessLab, loss: Any, phases: int) -> Any:
    experience = Rollouts(toy_task.prompts(), ScoredBy(toy_task.Favours()), phases, prompts_per_phase=8, n=2)
    return lab.fit(toy_task.base(lab), experience, loss, SCHEDULE)


FITS: dict[str, tuple[int, Callable[[HarnessLab], Any]]] = {  # optimiser steps in all, and the fit
    "sft": (4, lambda lab: lab.fit(toy_task.base(lab), Fixed(toy_task.demonstrations()), SFTLoss(), SCHEDULE)),
    "dpo": (4, lambda lab: lab.fit(toy_task.base(lab), Fixed(pairs(toy_task.preferences())), DPOLoss(), SCHEDULE)),
    "reward model": (4, lambda lab: lab.fit_reward_model(
        toy_task.base(lab), toy_task.preferences(), KWiseRewardLoss(), SCHEDULE)),
    "ppo": (12, lambda lab: rollouts(lab, PPOLoss(target_kl=0.5, kl_horizon=50), 3)),
    "ppo with demonstrations": (12, lambda lab: lab.fit(
        toy_task.base(lab),
        WithDemonstrations(
            Rollouts(toy_task.prompts(), ScoredBy(toy_task.Favours()), 3, 8, n=2), toy_task.demonstrations()
        ),
        PPOLoss(ptx_coef=0.5), SCHEDULE)),
    "one phase of ppo": (4, lambda lab: rollouts(lab, PPOLoss(target_kl=0.5, kl_horizon=50), 1)),
    "one phase of imitation": (4, lambda lab: rollouts(lab, SFTLoss(), 1)),
    "fixed rows in phases": (12, lambda lab: lab.fit(
        toy_task.base(lab), Fixed(toy_task.demonstrations(), phases=3), SFTLoss(), SCHEDULE)),
}  # fmt: skip


def outcome(lab: HarnessLab, made: Any) -> tuple[dict[str, bytes], Ledger, dict[str, int]]:
    files = ["adapter_model.safetensors", "metrics.jsonl", "fit.json"]
    if (made.folder / "head.safetensors").is_file():
        files.append("head.safetensors")
    assert lab.account.charged.seconds > 0
    ledger = replace(lab.account.charged, seconds=0.0, peak_memory_mib=0.0)
    met = lab.account.stages[-1]["met"]
    assert met["rows to train on"] > 0
    return {name: (made.folder / name).read_bytes() for name in files}, ledger, met


@pytest.mark.parametrize("interval", [0.0, math.inf])  # a checkpoint wherever possible, and none at all
@pytest.mark.parametrize("name", FITS)
def test_an_interrupted_fit_ends_like_one_left_alone(
    name: str, interval: float, new_lab: NewLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, fit = FITS[name]
    whole = new_lab(cache=tmp_path / "whole")
    expected = outcome(whole, fit(whole))
    monkeypatch.setattr(checkpoint, "INTERVAL", interval)
    monkeypatch.setattr(checkpoint, "SHARE", math.inf)
    step, left = Fit._step, 0

    def stops(self: Fit, *arguments: Any) -> None:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        step(self, *arguments)

    monkeypatch.setattr(Fit, "_step", stops)
    for allowed in (1, steps // 2):  # killed twice on its way
        left = allowed
        lab = new_lab(cache=tmp_path / "stopped")
        with pytest.raises(KeyboardInterrupt):
            fit(lab)
        assert lab.account.charged == Ledger()  # nothing is charged before it is done
    left = steps
    lab = new_lab(cache=tmp_path / "stopped")
    assert outcome(lab, fit(lab)) == expected
    assert steps == lab.account.charged.optimizer_steps
    assert not list((tmp_path / "stopped").glob("*.partial"))


def test_work_done_before_the_kill_is_not_done_again(new_lab: NewLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "INTERVAL", 0.0)
    monkeypatch.setattr(checkpoint, "SHARE", math.inf)
    write, written = Checkpoint.write, []

    def stops(self: Checkpoint, progress: dict[str, Any]) -> None:
        write(self, progress)
        written.append((progress["phase"], progress["step"]))
        if len(written) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "write", stops)
    lab = new_lab()
    with pytest.raises(KeyboardInterrupt):
        FITS["sft"][1](lab)
    FITS["sft"][1](lab)
    assert written == [(0, 1), (0, 2), (0, 3), (1, 0)]


def test_rollouts_go_on_from_the_end_of_a_phase_only(new_lab: NewLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "INTERVAL", 0.0)
    monkeypatch.setattr(checkpoint, "SHARE", math.inf)
    written = []

    def notes(self: Checkpoint, progress: dict[str, Any]) -> None:
        written.append((progress["phase"], progress["step"]))

    monkeypatch.setattr(Checkpoint, "write", notes)
    FITS["ppo"][1](new_lab())
    assert written == [(1, 0), (2, 0), (3, 0)]


def test_a_kill_between_two_checkpoints_leaves_the_older(new_lab: NewLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "INTERVAL", 0.0)
    monkeypatch.setattr(checkpoint, "SHARE", math.inf)
    publish, published = checkpoint.publish, []

    def stops(new: Path, old: Path) -> None:
        published.append(old)
        if len(published) in (2, 3):  # the older one is set aside, the newer not in place: twice in a row
            raise KeyboardInterrupt
        publish(new, old)

    monkeypatch.setattr(checkpoint, "publish", stops)
    lab = new_lab()
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            FITS["sft"][1](lab)
    (stored,) = lab.cache.root.glob("*.partial")
    assert json.loads((stored / ".old" / "progress.json").read_text())["step"] == 1
    FITS["sft"][1](lab)
    assert len(published) == 3 + 3  # steps 2, 3 and 4


def test_checkpoints_that_take_long_are_written_less_often(new_lab: NewLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "INTERVAL", 10.0)
    now, writes, step, write = [0.0], [], Fit._step, Checkpoint.write

    def steps(self: Fit, *arguments: Any) -> None:
        now[0] += 6.0
        step(self, *arguments)

    def slow(self: Checkpoint, progress: dict[str, Any]) -> None:
        writes.append(now[0])
        with monkeypatch.context() as patched:
            ticks = iter([now[0]])
            patched.setattr(checkpoint.time, "monotonic", lambda: next(ticks, now[0] + 0.2))
            write(self, progress)

    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(Fit, "_step", steps)
    monkeypatch.setattr(Checkpoint, "write", slow)
    FITS["fixed rows in phases"][1](new_lab())
    assert writes == [12.0, 36.0, 60.0]  # once 10 s are over; then once .2 s are a hundredth of what has passed
