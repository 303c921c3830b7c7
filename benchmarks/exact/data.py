"""The splits of an exact world: trained combinations asked many times, held-out ones once for evaluation.

What needs torch is imported where it is used: datasets are listed without it.
"""

from __future__ import annotations

from alignarena.benchmarks.exact.text import drawn_rows, prompt_rows
from alignarena.benchmarks.splits import (
    DataConfig,
    DatasetReport,
    Row,
    SourceReport,
    Splits,
    TooLong,
    UnmadeModel,
    split_reports,
)
from alignarena.core.contract import Principle, Scorer, TrainablePolicy
from alignarena.core.errors import BadInput
from alignarena.core.model import ModelConfig
from alignarena.evaluators.exact.gold import WorldGold
from alignarena.evaluators.exact.labeler import WorldLabeler
from alignarena.evaluators.exact.reviser import WorldReviser, place_principles
from alignarena.evaluators.exact.world import AXES


def load(config: DataConfig, too_long: TooLong) -> Splits:
    """Draw the rows of a world; ``data.sizes`` cuts a split to its first rows, which run through all combinations.

    Trained splits share their prompts, each row under an id of its own: what is held out are combinations.
    """
    world = config.world
    kept: dict[str, list[Row]] = {
        "sft": drawn_rows(world, world.trained, world.demonstrations, "sft", world.demonstration_logits),
        "evaluation": prompt_rows(world.held_out, 1, "evaluation"),
    }
    for name in ("reward_model", "train", "validation"):
        kept[name] = prompt_rows(world.trained, _repeats(config, name), name)
    used = {name: rows[: config.sizes.get(name)] for name, rows in kept.items()}
    counts = [SourceReport(f"exact world {world.seed}, {one}", len(rows), len(rows), {}) for one, rows in kept.items()]
    return Splits(
        demonstrations=used["sft"], feedback_prompts=used["reward_model"], preferences={}, judge_preferences={},
        prompts=used["train"], validation=used["validation"], evaluation=used["evaluation"], heldout={},
        report=DatasetReport(config.dataset, tuple(counts), split_reports(used, kept)),
    )  # fmt: skip


def _repeats(config: DataConfig, split: str) -> int:
    """Return how often each trained combination is asked in a split: as often as its size wants."""
    world, size = config.world, config.sizes.get(split)
    return world.rows if size is None else -(-size // len(world.trained))


def model(config: DataConfig, given: ModelConfig) -> str:
    """Return the folder of the world's base model.

    Raises:
        BadInput: The model's limits are not the world's.
    """
    from alignarena.benchmarks.exact.language import base_model

    _check_limits(config, given)
    return base_model(config.world, given)


def unmade(config: DataConfig, given: ModelConfig) -> UnmadeModel:
    """Return what is known of the world's base model without pretraining it; errors as those of :func:`model`."""
    from alignarena.benchmarks.exact.language import completion_words, shape, tokenizer

    _check_limits(config, given)
    world = config.world
    return UnmadeModel(tokenizer(world), shape(world), tuple(completion_words(world)))


def _check_limits(config: DataConfig, given: ModelConfig) -> None:
    if given.max_new_tokens != config.world.length:
        raise BadInput(f"model.max_new_tokens: must be data.world.length = {config.world.length}")


def scorers(config: DataConfig) -> dict[str, Scorer]:
    """Return what a simulated annotator may rank by."""
    return {"gold": WorldGold(config.world), **{axis: WorldGold(config.world, axis) for axis in AXES}}


def labeler(config: DataConfig, base: TrainablePolicy, unlimited: bool) -> WorldLabeler:
    """Return the world's AI labeler: a program, whatever the base model is."""
    return WorldLabeler(config.world, unlimited)


def reviser(config: DataConfig, base: TrainablePolicy) -> WorldReviser:
    """Return the world's reviser, a program too."""
    return WorldReviser(config.world)


def principles(config: DataConfig) -> tuple[Principle, ...]:
    """Return the constitution that a program understands."""
    return place_principles(config.world)
