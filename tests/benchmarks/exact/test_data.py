"""The splits of a world and its rows, drawn from the stated distributions."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from alignarena.benchmarks.datasets import load_dataset_splits, model_of
from alignarena.benchmarks.exact.data import scorers, unmade
from alignarena.benchmarks.exact.text import completion_text, drawn_rows, prompt_rows
from alignarena.benchmarks.splits import DataConfig
from alignarena.core.errors import BadInput
from alignarena.core.model import ModelConfig
from alignarena.evaluators.exact.world import World, parsed, prompt_text

WORLD = World(attributes=2, tokens=3, length=3, rows=4, demonstrations=6)


def test_methods_are_given_the_trained_half_and_evaluated_on_the_other() -> None:
    splits = load_dataset_splits(DataConfig("exact", world=WORLD))
    trained, held_out = ({prompt_text(one) for one in half} for half in (WORLD.trained, WORLD.held_out))
    for rows, repeats in ((splits.demonstrations, 6), (splits.feedback_prompts, 4), (splits.prompts, 4)):
        assert Counter(row["prompt"] for row in rows) == dict.fromkeys(trained, repeats)
    assert Counter(row["prompt"] for row in splits.evaluation) == dict.fromkeys(held_out, 1)
    every = [*splits.demonstrations, *splits.feedback_prompts, *splits.prompts, *splits.validation, *splits.evaluation]
    assert len({row["prompt_id"] for row in every}) == len(every)
    assert {(row["axis"], row["kind"]) for row in every} == {("overall", "ordinary")}
    assert all(prompt_text(parsed(row["prompt"])).replace(" ", "") == row["cluster"] for row in every)
    assert splits.preferences == {} and splits.heldout == {}


@pytest.mark.parametrize(("size", "repeats"), [(1, 1), (5, 1), (7, 2), (64, 13)])
def test_a_size_asks_every_trained_prompt_as_often_as_it_must(size: int, repeats: int) -> None:
    splits = load_dataset_splits(DataConfig("exact", sizes={"reward_model": size}, world=WORLD))
    counts = Counter(row["prompt"] for row in splits.feedback_prompts)
    assert sum(counts.values()) == size and max(counts.values()) == repeats
    assert max(counts.values()) - min(counts.values()) <= 1
    assert len(splits.prompts) == 4 * len(WORLD.trained)  # other splits stay as they are


def test_rows_are_drawn_from_the_stated_chain() -> None:
    count, (first, second) = 4000, WORLD.trained[:2]
    rows = drawn_rows(WORLD, [first, second], count, "sft", WORLD.demonstration_logits)
    leaves = WORLD.leaves
    texts = [completion_text(WORLD, ids) + ("" if done else " (cut)")
             for ids, done in zip(leaves.ids, leaves.finished, strict=True)]  # fmt: skip
    for combination in (first, second):
        mine = [row for row in rows if row["prompt"] == prompt_text(combination)]
        ended = [row["completion_ids"][-1] == WORLD.tokens for row in mine]
        seen = Counter(row["completion"] + ("" if done else " (cut)") for row, done in zip(mine, ended, strict=True))
        shares = np.array([seen[text] for text in texts]) / count
        expected = np.exp(leaves.markov(WORLD.demonstration_logits(combination)))
        assert sum(seen.values()) == count and abs(shares - expected).sum() / 2 < 0.05  # total variation
    assert all(row["completion"].split() == [f"t{i}" for i in row["completion_ids"] if i < 3] for row in rows[:50])


def test_rows_are_the_worlds_alone() -> None:
    def texts(split: str, world: World = WORLD) -> list[str]:
        rows = drawn_rows(world, WORLD.trained, 8, split, world.demonstration_logits)
        return [row["completion"] for row in rows]

    assert texts("sft") == texts("sft") != texts("other")
    assert texts("sft", World(1, attributes=2, tokens=3, length=3)) != texts("sft")
    assert [row["prompt_id"] for row in prompt_rows([(0, 1)], 2, "train")] == ["train/a0b1/0", "train/a0b1/1"]


def test_the_limits_of_the_model_are_those_of_the_world() -> None:
    config = DataConfig("exact", world=WORLD)
    for of in (model_of, unmade):
        with pytest.raises(BadInput, match=r"model\.max_new_tokens: must be data\.world\.length = 3"):
            of(config, ModelConfig(max_new_tokens=4))
    sketch = unmade(config, ModelConfig(max_new_tokens=3))
    assert sketch.words == ("t0", "t1", "t2") and sketch.shape.vocab_size == len(sketch.tokenizer)


def test_annotators_may_rank_by_either_axis() -> None:
    assert {name: one.axis for name, one in scorers(DataConfig("exact", world=WORLD)).items()} == {  # type: ignore[attr-defined]
        "gold": "overall", "helpful": "helpful", "harmless": "harmless"
    }  # fmt: skip
