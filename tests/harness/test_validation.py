"""Prompts held out of a fixed set: the epoch of least loss on them is kept, and training never sees them."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import tiny_model
import toy_task
from datasets import Dataset

from alignarena.core.contract import Experience, Loss, Rows, Schedule
from alignarena.core.errors import BadInput, RunFailed
from alignarena.core.records import Ledger
from alignarena.core.seeds import derive
from alignarena.harness import checkpoint
from alignarena.harness.backbone import Backbone
from alignarena.harness.batches import Example
from alignarena.harness.cache import Cache
from alignarena.harness.checkpoint import Checkpoint
from alignarena.harness.lab import HarnessLab
from alignarena.harness.trainer import Fit
from alignarena.harness.validation import hold_out
from alignarena.methods.parts.experience import Fixed, Rollouts, ScoredBy
from alignarena.methods.parts.losses import DPOLoss, SFTLoss
from alignarena.methods.parts.policy_gradient import PPOLoss
from alignarena.methods.parts.reward_losses import KWiseRewardLoss
from alignarena.methods.parts.rows import pairs

NewLab = Callable[..., HarnessLab]
SCHEDULE = Schedule(learning_rate=1e-2, batch_size=4, num_train_epochs=10, validation_share=0.25)
STEPS, EPOCHS = 2, SCHEDULE.num_train_epochs  # steps of an epoch: 6 prompts left of 8
# at these rates each gets better on the prompts held out, then worse: of adapters, and of all weights
RATES = {"sft": (1e-2, 1e-2), "dpo": (2e-3, 1e-3), "reward model": (5e-3, 1e-3)}
FITS: dict[str, tuple[Rows, Loss, bool]] = {  # rows, loss and whether a reward model is trained
    "sft": (toy_task.demonstrations(), SFTLoss(), False),
    "dpo": (pairs(toy_task.preferences()), DPOLoss(), False),
    "reward model": (toy_task.preferences(), KWiseRewardLoss(), True),
}


def fit(lab: HarnessLab, name: str, rows: Rows | None = None, **changes: Any) -> Any:
    own, loss, scores = FITS[name]
    used = own if rows is None else rows
    rate = RATES[name][0 if lab.backbone.config.use_peft else 1]
    schedule = replace(SCHEDULE, **{"learning_rate": rate, **changes})
    if scores:
        return lab.fit_reward_model(toy_task.base(lab), used, loss, schedule)
    return lab.fit(toy_task.base(lab), Fixed(used), loss, schedule)


def log(fitted: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (fitted.folder / "metrics.jsonl").read_text().splitlines()]


def validation_losses(fitted: Any) -> list[float]:
    return [line["validation_loss"] for line in log(fitted) if "validation_loss" in line]


def best_epoch(fitted: Any) -> int:
    """Return the epoch, from 1, whose logged validation loss is least; it is neither the first nor the last."""
    losses = validation_losses(fitted)
    best = losses.index(min(losses)) + 1
    assert 1 < best < len(losses), losses
    return best


def weights(fitted: Any) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(fitted.folder.glob("*.safetensors"))}


def cut(name: str) -> tuple[Rows, Rows]:
    """Return the rows that a fit trains on and those it holds out."""
    rows, _, scores = FITS[name]
    items = [Example(row["prompt_id"], {}, frozenset(), {}) for row in rows.to_list()]
    held = hold_out(items, SCHEDULE.validation_share, derive(0, "fit_reward_model" if scores else "fit"))[1]
    chosen = {item.group for item in held}
    return rows.filter(lambda row: row["prompt_id"] not in chosen), rows.filter(lambda row: row["prompt_id"] in chosen)


def bill(lab: HarnessLab) -> Ledger:
    return replace(lab.account.charged, seconds=0.0, peak_memory_mib=0.0)


# -- the cut ----------------------------------------------------------------------------------------------------------


def items_of(prompts: int, rows: int = 3) -> list[Example]:
    return [Example(f"p{i % prompts}", {}, frozenset(), {"row": i}) for i in range(prompts * rows)]


@pytest.mark.parametrize(("share", "count"), [(0.1, 1), (0.25, 2), (0.5, 5), (0.9, 9)])
def test_whole_prompts_are_held_out(share: float, count: int) -> None:
    items = items_of(10)
    trained, held = hold_out(items, share, seed=0)
    assert len({item.group for item in held}) == count
    assert not {item.group for item in held} & {item.group for item in trained}
    assert sorted(item.columns["row"] for item in trained + held) == list(range(30))
    for part in (trained, held):
        assert [item.columns["row"] for item in part] == sorted(item.columns["row"] for item in part)


def test_the_choice_depends_on_the_seed_and_the_number_of_prompts_only() -> None:
    def chosen(seed: int, rows: int = 3) -> set[str]:
        return {item.group for item in hold_out(items_of(10, rows), 0.3, seed)[1]}

    assert chosen(0) == chosen(0, rows=5)
    assert len({frozenset(chosen(seed)) for seed in range(10)}) > 5


@pytest.mark.parametrize(("prompts", "share"), [(1, 0.5), (8, 0.01), (8, 0.99), (8, 1.0), (8, -0.25)])
def test_no_prompt_on_one_side_is_bad_input(prompts: int, share: float) -> None:
    with pytest.raises(BadInput, match=r"validation_share: .* of \d prompts .* set it nearer to 0.5"):
        hold_out(items_of(prompts), share, seed=0)


# -- which epoch is kept ----------------------------------------------------------------------------------------------


def full(tiny_model_dir: Path) -> Backbone:
    return Backbone(tiny_model.config(tiny_model_dir, use_peft=False))


@pytest.mark.parametrize("name", FITS)
@pytest.mark.parametrize("use_peft", [True, False])
def test_the_best_epoch_is_kept_and_the_prompts_held_out_are_never_trained_on(
    name: str, use_peft: bool, new_lab: NewLab, tiny_model_dir: Path, tmp_path: Path
) -> None:
    lab = new_lab() if use_peft else HarnessLab(full(tiny_model_dir), Cache(tmp_path / "full"), seed=0)
    kept = fit(lab, name)
    best = best_epoch(kept)
    assert ["validation_loss" in line for line in log(kept)] == [False, True] * EPOCHS
    stopped = fit(lab, name, num_train_epochs=best)
    assert weights(kept) == weights(stopped)
    assert log(kept)[: STEPS * best] == log(stopped)
    alone = fit(lab, name, cut(name)[0], num_train_epochs=best, validation_share=0.0)
    assert weights(kept) == weights(alone)


def test_the_validation_loss_is_the_loss_of_the_rows_held_out(new_lab: NewLab) -> None:
    lab = new_lab()
    kept = fit(lab, "sft")
    logps = [value for row in lab.logps(kept, cut("sft")[1])["logps"] for value in row]
    assert min(validation_losses(kept)) == pytest.approx(-sum(logps) / len(logps), rel=1e-5)


@dataclass(frozen=True)
class Signed(SFTLoss):
    """The loss of SFT times a column: what is learnt from rows of one sign is unlearnt from the other."""

    columns: ClassVar[frozenset[str]] = frozenset({"sign"})

    def __call__(self, outputs: Mapping[str, Any], batch: Any) -> Any:
        loss, metrics = super().__call__(outputs, batch)
        return loss * batch.columns["sign"], metrics


def test_the_start_is_kept_where_every_epoch_is_worse(new_lab: NewLab) -> None:
    same = toy_task.demonstrations().to_list()[0]
    rows = [{**same, "prompt_id": row["prompt_id"], "sign": sign}
            for part, sign in zip(cut("sft"), (1.0, -1.0), strict=True) for row in part.to_list()]  # fmt: skip
    rows.sort(key=lambda row: row["prompt_id"])
    lab = new_lab()
    start = toy_task.sft(lab)
    kept = lab.fit(start, Fixed(Dataset.from_list(rows)), Signed(), replace(SCHEDULE, num_train_epochs=2))
    assert weights(kept) == weights(start)
    assert len(log(kept)) == 2 * STEPS


def test_a_used_up_budget_leaves_the_best_epoch_so_far(new_lab: NewLab) -> None:
    whole = fit(new_lab(), "sft")
    best, lines = best_epoch(whole), log(whole)
    within = sum(line["tokens"] for line in lines[: STEPS * best]) + 1  # into the first step of the epoch after
    lab = new_lab(trained_tokens=within)
    cut = fit(lab, "sft")
    assert len(log(cut)) == STEPS * best + 1
    assert lab.account.stages[-1]["stopped"] == "budget"
    assert weights(cut) == weights(whole)


@dataclass(frozen=True)
class Overflows(SFTLoss):
    """Is infinite where nothing is trained."""

    def __call__(self, outputs: Mapping[str, Any], batch: Any) -> Any:
        loss, metrics = super().__call__(outputs, batch)
        return loss if loss.requires_grad else loss * math.inf, metrics


def test_a_validation_loss_that_is_not_finite_ends_the_run(new_lab: NewLab) -> None:
    lab = new_lab()
    with pytest.raises(RunFailed, match="Overflows: the validation loss is inf after 0 steps; lower the learning_rate"):
        lab.fit(toy_task.base(lab), Fixed(toy_task.demonstrations()), Overflows(), SCHEDULE)


# -- what training sees -----------------------------------------------------------------------------------------------


def test_what_the_rows_held_out_say_changes_no_training_step(new_lab: NewLab) -> None:
    held = set(cut("dpo")[1]["prompt_id"])
    rows = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} if row["prompt_id"] in held else row
            for row in FITS["dpo"][0].to_list()]  # fmt: skip
    lab = new_lab()
    logs = [log(fit(lab, "dpo", one)) for one in (None, Dataset.from_list(rows))]
    told = [[line.pop("validation_loss") for line in lines if "validation_loss" in line] for lines in logs]
    assert told[0] != told[1]
    assert logs[0] == logs[1]


def test_forward_passes_on_the_rows_held_out_are_charged_as_such(new_lab: NewLab) -> None:
    lab, alone, forward = new_lab(), new_lab(), new_lab()
    trained, held = cut("sft")
    fit(lab, "sft", num_train_epochs=3)
    fit(alone, "sft", trained, num_train_epochs=3, validation_share=0.0)
    forward.logps(toy_task.base(forward), held)
    ours, theirs, once = lab.account.charged, alone.account.charged, forward.account.charged.scored_tokens
    assert ours.scored_tokens == 4 * once > 0  # at the start, and after each epoch
    assert (ours.trained_tokens, ours.optimizer_steps) == (theirs.trained_tokens, theirs.optimizer_steps)
    assert ours.flops == pytest.approx(theirs.flops + 2 * lab.backbone.parameters * 4 * once)


def test_reference_log_probs_of_the_rows_held_out_are_there(new_lab: NewLab) -> None:
    kept = fit(new_lab(), "dpo", num_train_epochs=1, learning_rate=1e-12)
    assert validation_losses(kept) == [pytest.approx(math.log(2), abs=1e-6)]


# -- where nothing is held out ----------------------------------------------------------------------------------------


def rollouts(phases: int) -> Rollouts:
    return Rollouts(toy_task.prompts(), ScoredBy(toy_task.Favours()), phases, prompts_per_phase=8, n=2)


@pytest.mark.parametrize(
    ("experience", "loss"),
    [(rollouts(2), PPOLoss()), (rollouts(1), SFTLoss()), (Fixed(toy_task.demonstrations(), phases=2), SFTLoss())],
)
def test_nothing_is_held_out_of_rollouts_or_a_stream(experience: Experience, loss: Loss, new_lab: NewLab) -> None:
    schedule = replace(SCHEDULE, num_train_epochs=2)
    lab = new_lab()
    asked, not_asked = (lab.fit(toy_task.base(lab), experience, loss, replace(schedule, validation_share=share))
                        for share in (0.25, 0.0))  # fmt: skip
    assert weights(asked) == weights(not_asked)
    assert log(asked) == log(not_asked)


def test_a_share_of_0_holds_nothing_out(new_lab: NewLab) -> None:
    lab = new_lab()
    fitted = fit(lab, "sft", validation_share=0.0, num_train_epochs=2, batch_size=8)
    assert [set(line) & {"validation_loss"} for line in log(fitted)] == [set(), set()]
    assert lab.account.charged.scored_tokens == 0
    lab.logps(toy_task.base(lab), FITS["sft"][0])
    assert log(fitted)[0]["tokens"] == lab.account.charged.scored_tokens  # of every prompt


# -- kill and resume --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interval", [0.0, math.inf])  # a checkpoint wherever possible, and none at all
@pytest.mark.parametrize("name", FITS)
def test_an_interrupted_fit_keeps_the_same_epoch(
    name: str, interval: float, new_lab: NewLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = new_lab(cache=tmp_path / "whole")
    expected = fit(whole, name)
    best = best_epoch(expected)
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
    for allowed in (1, STEPS * best):  # in the first epoch, and after the best one
        left = allowed
        with pytest.raises(KeyboardInterrupt):
            fit(new_lab(cache=tmp_path / "stopped"), name)
    left = STEPS * EPOCHS
    lab = new_lab(cache=tmp_path / "stopped")
    resumed = fit(lab, name)
    assert (left > 0) == (interval == 0.0)  # it went on from the checkpoint, or began again
    assert weights(resumed) == weights(expected)
    assert log(resumed) == log(expected)
    assert bill(lab) == bill(whole)


@pytest.mark.parametrize("after", [1, STEPS * EPOCHS])
def test_a_fit_killed_as_it_ends_or_begins_keeps_the_same_epoch(
    after: int, new_lab: NewLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = fit(new_lab(cache=tmp_path / "whole"), "sft")
    monkeypatch.setattr(checkpoint, "INTERVAL", 0.0)
    monkeypatch.setattr(checkpoint, "SHARE", math.inf)
    write, written = Checkpoint.write, []

    def stops(self: Checkpoint, progress: dict[str, Any]) -> None:
        write(self, progress)
        written.append(progress["step"])
        if len(written) == after:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "write", stops)
    with pytest.raises(KeyboardInterrupt):
        fit(new_lab(cache=tmp_path / "stopped"), "sft")
    resumed = fit(new_lab(cache=tmp_path / "stopped"), "sft")
    assert len(written) == STEPS * EPOCHS  # no step twice
    assert weights(resumed) == weights(expected)
