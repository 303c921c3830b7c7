"""TRL's trainers as the harness runs them: token ids instead of texts, our learning rates, nothing sent anywhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.optim.lr_scheduler import LambdaLR

from alignarena.core.contract import Schedule
from alignarena.harness.batches import Example
from alignarena.harness.tokens import Ids
from alignarena.harness.trainer import rate_factor

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # docs/methods/trl.md says which of them are

from trl import (
    DPOConfig,
    DPOTrainer,
    GRPOConfig,
    GRPOTrainer,
    KTOConfig,
    KTOTrainer,
    RLOOConfig,
    RLOOTrainer,
)
from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

Row = dict[str, Any]


class _Ours:
    """What is ours in each of them."""

    schedule: Schedule
    optimizer: Any

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LambdaLR:
        """Let the learning rate go as in a fit: transformers wastes the first step of a warm-up at a rate of 0."""

        def factor(step: int) -> float:
            return rate_factor(self.schedule, step, num_training_steps)

        self.lr_scheduler = LambdaLR(optimizer or self.optimizer, factor)
        return self.lr_scheduler

    def _send_telemetry(self) -> None:
        pass


class _ReadsIds(_Ours):
    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset


class _DPO(_ReadsIds, DPOTrainer):  # type: ignore[misc]
    pass


class _KTO(_ReadsIds, KTOTrainer):  # type: ignore[misc]
    pass


class _ORPO(_Ours, ORPOTrainer):  # type: ignore[misc]
    def tokenize_row(self, feature: Row, model: Any = None) -> Row:
        """Lay the ids of a pair out as TRL's own does its tokens."""
        prompt, made = feature["prompt_ids"], {}
        for side in ("chosen", "rejected"):
            completion = feature[f"{side}_ids"]
            made[f"{side}_input_ids"] = prompt + completion
            made[f"{side}_attention_mask"] = [1] * len(prompt + completion)
            made[f"{side}_labels"] = [-100] * len(prompt) + completion
        return {**made, "prompt_input_ids": prompt, "prompt_attention_mask": [1] * len(prompt)}


class _SamplesIds(_Ours):
    """Its prompts are numbers written as text, which no tokeniser sees."""

    prompts: Sequence[Ids]
    processing_class: Any

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return [list(self.prompts[int(number)]) for number in prompts], None, {}


class _RLOO(_SamplesIds, RLOOTrainer):  # type: ignore[misc]
    pass


class _GRPO(_SamplesIds, GRPOTrainer):  # type: ignore[misc]
    pass


class _OnlineDPO(_SamplesIds, OnlineDPOTrainer):  # type: ignore[misc]
    def _generate(self, model: Any, prompts: list[str], images: None = None) -> Any:
        tokenizer = self.processing_class

        def ids_of(text: list[str], **_: Any) -> Mapping[str, torch.Tensor]:
            found = {"input_ids": self._tokenize_prompts(text)[0]}
            return tokenizer.pad(found, padding_side="left", return_tensors="pt")  # type: ignore[no-any-return]

        self.processing_class = ids_of
        try:
            return super()._generate(model, prompts, images)
        finally:
            self.processing_class = tokenizer


@dataclass(frozen=True)
class Kind:
    """A trainer with its configuration class, and the rows that it reads, if it reads any."""

    trainer: Any
    config: Any
    # from pairs, the rows of a micro-batch and what order is drawn from
    rows: Callable[[Sequence[Example], int, np.random.Generator], list[Row]] | None = None
    rows_a_pair: int = 1
    has_reference: bool = True


def _pairs(pairs: Sequence[Example], size: int, draw: np.random.Generator) -> list[Row]:
    return list(map(_ids, pairs))


def _texts(pairs: Sequence[Example], size: int, draw: np.random.Generator) -> list[Row]:
    return [{**_ids(pair), "prompt": "", "chosen": "", "rejected": ""} for pair in pairs]


def _singles(pairs: Sequence[Example], size: int, draw: np.random.Generator) -> list[Row]:
    """Return both completions of each pair, and beside each the one before it in its micro-batch, as TRL does.

    TRL keeps the order of the rows, so it is drawn here: a pair's completions side by side would be each other's.
    """
    both = [row for pair in pairs for row in _both(_ids(pair))]
    rows = [both[i] for i in draw.permutation(len(both))]
    for start in range(0, len(rows), size):
        batch = rows[start : start + size]
        for row, before in zip(batch, [batch[-1], *batch[:-1]], strict=True):
            row["KL_completion_ids"] = before["completion_ids"]
    return rows


def _both(pair: Row) -> Iterator[Row]:
    for side in ("chosen", "rejected"):
        yield {"prompt_ids": pair["prompt_ids"], "completion_ids": pair[f"{side}_ids"], "label": side == "chosen"}


def _ids(pair: Example) -> Row:
    (chosen,), (rejected,) = pair.sequences["chosen"], pair.sequences["rejected"]
    ids = {"prompt_ids": chosen.prompt, "chosen_ids": chosen.completion, "rejected_ids": rejected.completion}
    return {name: list(one) for name, one in ids.items()}


KINDS = {
    "DPOTrainer": Kind(_DPO, DPOConfig, _pairs),
    "KTOTrainer": Kind(_KTO, KTOConfig, _singles, rows_a_pair=2),
    "ORPOTrainer": Kind(_ORPO, ORPOConfig, _texts, has_reference=False),
    "RLOOTrainer": Kind(_RLOO, RLOOConfig),
    "GRPOTrainer": Kind(_GRPO, GRPOConfig),
    "OnlineDPOTrainer": Kind(_OnlineDPO, OnlineDPOConfig),
}
