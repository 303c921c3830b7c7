"""The labeler of an exact world: its opinion is gold with a stated error, the same whenever it is asked."""

from dataclasses import replace
from math import exp

import numpy as np
import pytest
from datasets import Dataset

from alignarena.core.contract import Judge, Labeler, Scorer
from alignarena.core.errors import BadInput
from alignarena.evaluators.exact.gold import WorldGold
from alignarena.evaluators.exact.labeler import WorldLabeler
from alignarena.evaluators.exact.world import World, prompt_text

WORLD = World(tokens=3, length=3)
PROMPT = WORLD.trained[0]
ROWS = Dataset.from_list(
    [
        {"prompt_id": "a", "prompt": prompt_text(PROMPT), "completions": ["t0 t1", "t2"],
         "finish_reasons": ["stop", "stop"]},
        {"prompt_id": "b", "prompt": prompt_text(PROMPT), "completions": ["t2", "t0 t1 t1"],
         "finish_reasons": ["stop", "length"]},
    ]
)  # fmt: skip


def test_it_judges_and_scores_at_a_labelers_price() -> None:
    labeler = WorldLabeler(WORLD)
    assert isinstance(labeler, Judge) and isinstance(labeler, Scorer) and isinstance(labeler, Labeler)
    assert (labeler.calls(1), labeler.calls(2), labeler.writer) == (1, 2, None)
    assert labeler.lineage != WorldGold(WORLD).lineage


def test_without_noise_its_opinion_is_gold_and_its_labels_are_soft() -> None:
    labeler = WorldLabeler(WORLD)
    gold = WorldGold(WORLD)
    singles = Dataset.from_list(
        [{"prompt": row["prompt"], "completion": text, "finish_reason": reason} for row in ROWS.to_list()
         for text, reason in zip(row["completions"], row["finish_reasons"], strict=True)]
    )  # fmt: skip
    scores = labeler.score(singles, None)  # type: ignore[arg-type]
    assert scores == gold.score(singles, None)  # type: ignore[arg-type]
    for row, first, second in zip(labeler.prefer(ROWS, None), scores[::2], scores[1::2], strict=True):  # type: ignore[arg-type]
        assert row["probability"] == pytest.approx(1 / (1 + exp(second - first)))
        assert row["ranks"] == ([1, 2] if first > second else [2, 1])


def test_t14_either_order_gives_one_opinion() -> None:
    turned = ROWS.map(lambda row: {name: row[name][::-1] for name in ("completions", "finish_reasons")})
    labeler = WorldLabeler(replace(WORLD, labeler_noise=1.0))
    forth, back = (labeler.prefer(rows, None)["probability"] for rows in (ROWS, turned))  # type: ignore[arg-type]
    assert np.add(forth, back) == pytest.approx([1, 1])


def test_its_error_is_as_large_as_stated_and_its_own() -> None:
    noisy = replace(WORLD, labeler_noise=0.5)
    errors = np.concatenate([noisy.opinion(prompt) - noisy.gold(prompt) for prompt in noisy.combinations])
    assert errors.std() == pytest.approx(0.5, rel=0.1) and abs(errors.mean()) < 0.05
    np.testing.assert_array_equal(noisy.gold(PROMPT), WORLD.gold(PROMPT))
    np.testing.assert_array_equal(noisy.opinion(PROMPT), noisy.opinion(PROMPT))
    with pytest.raises(BadInput, match=r"labeler_noise: must be 0 or more"):
        World(labeler_noise=-1)
