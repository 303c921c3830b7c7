"""One of TRL's trainers set up on our rows: micro-batches, steps, reference model and reward function."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PrinterCallback

from alignarena.core.contract import Rows, Schedule
from alignarena.core.degenerate import ROWS
from alignarena.core.errors import BadInput
from alignarena.core.records import OF_FITS, OF_SAMPLING
from alignarena.core.seeds import generator
from alignarena.harness.batches import Example, examples, grouped
from alignarena.harness.phase import POLICY
from alignarena.harness.trl_models import copy_of, state_of, watch
from alignarena.harness.trl_trainers import KINDS
from alignarena.harness.trl_watch import Rewards, Watch


class Training:
    """One of TRL's trainers, about to train the variant ``training-policy``."""

    def __init__(self, backend: Any, rows: Rows, lab: Any, seed: int, work: Path, watch: Watch) -> None:
        self.backend, self.rows, self.lab, self.seed, self.work, self.watch = backend, rows, lab, seed, work, watch
        self.kind, self.backbone = KINDS[backend.name], lab.backbone
        self.tokenizer = copy.deepcopy(self.backbone.tokens.tokenizer)  # TRL sets a padding token
        self.dropped: dict[str, int] = {}

    def run(self) -> None:
        """Train; the variant then holds what came out."""
        if self.lab.reached(OF_SAMPLING if self.backend.n else OF_FITS):
            self.watch.stopped = "budget"
            return
        trainer = self._online() if self.backend.n else self._offline()
        trainer.schedule = self.backend.schedule
        trainer.remove_callback(PrinterCallback)
        for model in (trainer.model, getattr(trainer, "ref_model", None)):
            if model is not None:
                watch(model, self.watch.read)
        trainer.train()
        self.backbone.weights.set_state(POLICY, state_of(trainer.model, self.backbone))

    def _offline(self) -> Any:
        pairs, dropped = examples(self.rows, self.backend, self.backbone.tokens)
        self.dropped = dict(dropped)
        self.lab.meet({ROWS: len(self.rows)})
        if any(pair.spans for pair in pairs):
            raise BadInput(f"TRL's {self.backend.name} trains on whole completions; these rows are of segments")
        schedule, rows_a_pair = self.backend.schedule, self.kind.rows_a_pair
        steps = math.ceil(len(grouped(pairs)) / schedule.batch_size)
        step = math.ceil(len(pairs) * rows_a_pair / steps)
        most = self.backbone.config.tokens_per_batch * rows_a_pair // (2 * _longest(pairs))
        parts = math.ceil(step / max(2, most))  # 2 at least, where KTO compares rows
        size = math.ceil(step / parts)
        assert self.kind.rows is not None
        rows = self.kind.rows(pairs, size, generator(self.seed, "order"))
        options = {"num_train_epochs": schedule.num_train_epochs, "max_length": self._limit}
        return self._made(options, size, parts, rows, **self._reference())

    def _online(self) -> Any:
        backend, given = self.backend, self.rows.to_list()
        rewards = Rewards(self.lab, given, backend.scorer, backend.missing_eos_penalty)
        rows = [{"prompt": str(number)} for number in range(len(given))]
        options, size, parts = self._pairwise() if backend.name == "OnlineDPOTrainer" else self._groupwise()
        schedule = backend.schedule
        steps = len(rows) // schedule.batch_size * schedule.num_train_epochs
        if backend.name != "OnlineDPOTrainer":
            self.watch.steps_an_update = backend.prompts_per_update // schedule.batch_size * schedule.num_train_epochs
        options |= {"max_steps": steps, "temperature": 1.0, "top_p": 1.0, "top_k": 0}
        trainer = self._made(options, size, parts, rows, reward_funcs=[rewards])
        trainer.prompts = rewards.prompts
        return trainer

    def _groupwise(self) -> tuple[dict[str, Any], int, int]:
        """Return the options of RLOO and GRPO, the completions of a micro-batch and the micro-batches of a step."""
        backend, config = self.backend, self.backbone.config
        step = backend.schedule.batch_size * backend.n
        parts = math.ceil(step / max(1, config.tokens_per_batch // self._limit))
        while step % parts:
            parts += 1
        size = step // parts
        options = {
            "num_generations": backend.n,
            "max_completion_length": config.max_new_tokens,
            "num_iterations": backend.schedule.num_train_epochs,
            "steps_per_generation": backend.prompts_per_update * backend.n // size,
            "shuffle_dataset": False,
        }
        return options, size, parts

    def _pairwise(self) -> tuple[dict[str, Any], int, int]:
        """Return the same of online DPO: accumulated, its gradients are summed where a mean is meant."""
        options = {
            "max_new_tokens": self.backbone.config.max_new_tokens,
            "max_length": self._limit,
            "train_sampling_strategy": "sequential",
        }
        return options, self.backend.schedule.batch_size, 1

    @property
    def _limit(self) -> int:
        """Tokens of the longest sequence."""
        config = self.backbone.config
        return int(config.max_prompt_tokens + config.max_new_tokens)

    def _reference(self) -> Mapping[str, Any]:
        """Return the reference model where the trainer would read another: in memory there is only the policy."""
        if self.backbone.config.use_peft or not self.kind.has_reference:
            return {}  # TRL keeps a frozen copy of an adapter
        return {"ref_model": copy_of(self.backbone, POLICY, self.work / "start")}

    def _made(
        self, options: Mapping[str, Any], size: int, parts: int, rows: list[dict[str, Any]], **given: Any
    ) -> Any:
        shared = _arguments(self.backend.schedule, self.backbone)
        model = copy_of(self.backbone, POLICY, self.work / "start")
        arguments = self.kind.config(
            output_dir=str(self.work / "out"), seed=self.seed % 2**31, per_device_train_batch_size=size,
            gradient_accumulation_steps=parts, **shared, **options, **self.backend.settings,
        )  # fmt: skip
        return self.kind.trainer(
            model=model, args=arguments, callbacks=[self.watch], train_dataset=Dataset.from_list(rows),
            processing_class=self.tokenizer, **given,
        )  # fmt: skip


def _arguments(schedule: Schedule, backbone: Any) -> dict[str, Any]:
    """Return what all trainers are told: our optimiser and precision, every step logged, nothing saved or reported."""
    return {
        "learning_rate": schedule.learning_rate,
        "weight_decay": schedule.weight_decay,
        "adam_epsilon": schedule.adam_epsilon,
        "max_grad_norm": schedule.max_grad_norm,
        "optim": "adamw_torch_fused",
        "bf16": backbone.precision == "bf16",
        "gradient_checkpointing": backbone.config.gradient_checkpointing,
        "use_cpu": backbone.accelerator.device.type == "cpu",
        "disable_dropout": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
    }


def _longest(pairs: list[Example]) -> int:
    return max(len(one.prompt) + len(one.completion)
               for pair in pairs for group in pair.sequences.values() for one in group)  # fmt: skip
