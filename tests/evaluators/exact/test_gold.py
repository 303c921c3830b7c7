"""The hidden reward as a scorer: the table, by the text of a completion and by whether it ended."""

import numpy as np
import pytest
from datasets import Dataset

from alignarena.core.errors import BadInput
from alignarena.evaluators.exact.gold import WorldGold
from alignarena.evaluators.exact.world import World, prompt_text

WORLD = World(attributes=2, tokens=3, length=3)


def rows(texts, reasons=None, prompt=(0, 1)):
    columns = {"prompt": [prompt_text(prompt)] * len(texts), "completion": list(texts)}
    return Dataset.from_dict(columns | ({"finish_reason": list(reasons)} if reasons else {}))


def spelt(leaf):
    return " ".join(f"t{token}" for token in WORLD.leaves.ids[leaf] if token < WORLD.tokens)


@pytest.mark.parametrize("axis", ["overall", "helpful", "harmless"])
def test_the_scorer_is_the_table(axis):
    scorer, leaves = WorldGold(WORLD, axis), WORLD.leaves
    texts = [spelt(leaf) for leaf in range(len(leaves))]
    reasons = ["stop" if ended else "length" for ended in leaves.finished]
    order = np.random.default_rng(0).permutation(len(leaves))
    table = rows(texts, reasons).select(order)
    assert scorer.score(table, None) == WORLD.gold((0, 1), axis)[order].tolist()
    assert scorer.lineage == {f"exact {axis}"}


def test_prompts_are_told_apart():
    scores = [WorldGold(WORLD).score(rows(["t0 t1"], prompt=prompt), None)[0] for prompt in WORLD.combinations]
    assert len(set(scores)) == len(WORLD.combinations)


def test_a_text_without_a_reason_has_ended():
    (score,) = WorldGold(WORLD).score(rows(["t0 t1"]), None)
    (place,) = [i for i in range(len(WORLD.leaves)) if spelt(i) == "t0 t1"]
    assert WORLD.leaves.finished[place] and score == WORLD.gold((0, 1))[place]
    assert WorldGold(WORLD).score(rows([""]), None) == [0.0]


@pytest.mark.parametrize(
    ("text", "reason"),
    [("t3", "stop"), ("hello", "stop"), ("t0t1", "stop"), ("t01", "stop"), ("t²", "stop"), ("t0 t1 t2", "stop"),
     ("t0 t1 t2 t0", "length"), ("t0", "length")],
)  # fmt: skip
def test_foreign_text_is_refused(text, reason):
    with pytest.raises(BadInput, match="is no completion of the exact world"):
        WorldGold(WORLD).score(rows([text], [reason]), None)
    with pytest.raises(BadInput, match="is not a prompt of the exact world"):
        WorldGold(WORLD).score(Dataset.from_list([{"prompt": "why?", "completion": "t0"}]), None)
