"""TRL's trainers as values: what one is called, its settings, and what it is given. TRL itself is imported to train."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from datasets import Dataset, concatenate_datasets

from alignarena.core.contract import NOTHING, Lab, PreferenceStream, Rows, Schedule, Scorer, Task, TrainablePolicy
from alignarena.core.errors import BadInput
from alignarena.methods.parts.experience import Rollouts, ScoredBy
from alignarena.methods.parts.losses import PAIR
from alignarena.methods.parts.rows import pairs

VERSION = "1.16"  # the trainers are subclassed: a later TRL is another trainer until someone has looked
INSTALL_HINT = "pip install 'alignarena[trl]'"


@dataclass(frozen=True)
class TRLTrainer:
    """One of TRL's trainers; with what it reads or samples, a :class:`alignarena.core.contract.Backend`."""

    name: str  # its class
    settings: Mapping[str, Any]  # fields of its configuration class
    schedule: Schedule

    columns: ClassVar[frozenset[str]] = NOTHING

    def __post_init__(self) -> None:
        """Check what TRL's trainers cannot do.

        Raises:
            BadInput: The schedule holds prompts out.
        """
        if self.schedule.validation_share:
            raise BadInput(f"TRL's {self.name} holds no prompts out: set schedule.validation_share to 0")

    @property
    def version(self) -> str:
        """TRL and its version; errors as those of :func:`installed`."""
        return installed()

    def train(self, policy: TrainablePolicy, rows: Rows, lab: Lab, folder: Path) -> None:
        """Train by TRL; called through ``lab.train_with``."""
        from alignarena.harness.trl_backend import train

        train(self, policy, rows, lab, folder)


@dataclass(frozen=True)
class PairTrainer(TRLTrainer):
    """A trainer that reads pairs."""

    reads: ClassVar[Mapping[str, tuple[str, str]]] = PAIR
    n: ClassVar[int] = 0
    scorer: ClassVar[Scorer | None] = None


@dataclass(frozen=True)
class OnlineTrainer(TRLTrainer):
    """A trainer that samples completions of prompts and asks for their scores."""

    scorer: Scorer
    missing_eos_penalty: float  # taken off the score of a completion that does not finish
    prompts_per_update: int
    n: int  # completions a prompt

    reads: ClassVar[Mapping[str, tuple[str, str]]] = {}

    def __post_init__(self) -> None:
        """Check what TRL's trainers cannot do.

        Raises:
            BadInput: The schedule holds prompts out or cuts an update into unequal steps, or n is below 2.
        """
        super().__post_init__()
        if self.n < 2:
            raise BadInput(f"TRL's {self.name} compares a prompt's completions: n must be at least 2, got {self.n}")
        if self.prompts_per_update % self.schedule.batch_size:
            raise BadInput(
                f"TRL's {self.name} takes steps of one size: schedule.batch_size ({self.schedule.batch_size}) must "
                f"divide prompts_per_update ({self.prompts_per_update})"
            )


def installed() -> str:
    """Return TRL and its version.

    Raises:
        BadInput: It is not installed, or is another version than these methods are written for.
    """
    try:
        version = importlib.metadata.version("trl")
    except importlib.metadata.PackageNotFoundError:
        raise BadInput(f"TRL's trainers are not installed; {INSTALL_HINT}") from None
    if not version.startswith(f"{VERSION}."):
        raise BadInput(f"TRL {version} is installed, these methods are written for {VERSION}; {INSTALL_HINT}")
    return f"trl {version}"


def labelled_pairs(task: Task, lab: Lab) -> Rows:
    """Return all strict pairs of the rankings; of an exact stream, its pairs with labels drawn by their probability.

    TRL's trainers read no soft labels. In the mean over draws their losses are those of soft labels.
    """
    preferences = task.preferences["overall"]
    if not isinstance(preferences, PreferenceStream):
        return pairs(preferences)
    phases = [preferences.rows(phase, task.policy, lab) for phase in range(preferences.phases)]
    rows = concatenate_datasets(phases).to_list()
    draws = lab.random("labels").random(len(rows))
    return Dataset.from_list([_labelled(row, draw) for row, draw in zip(rows, draws, strict=True)])


def _labelled(row: dict[str, Any], draw: float) -> dict[str, Any]:
    flipped = {"chosen": "rejected", "rejected": "chosen"} if draw >= row["probability"] else {}
    sides = {name: name.partition("_") for name in row if name.startswith(("chosen", "rejected"))}
    moved = {flipped.get(side, side) + mark + rest: row[name] for name, (side, mark, rest) in sides.items()}
    return {"prompt_id": row["prompt_id"], "prompt": row["prompt"], **moved}


def rollout_prompts(task: Task, lab: Lab, scorer: Scorer, updates: int, prompts_per_update: int) -> Rows:
    """Return the prompts of all updates, one row a prompt sampled from, in the order of our own rollouts."""
    rollouts = Rollouts(task.prompts, ScoredBy(scorer), updates, prompts_per_update)
    return concatenate_datasets([rollouts.prompts_of(phase, lab) for phase in range(updates)])
