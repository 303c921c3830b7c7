"""The reviser of an exact world: one word made the best, and the matrix of where revisions lead."""

from dataclasses import replace

import numpy as np
import pytest
from datasets import Dataset

from alignarena.core.contract import Principle
from alignarena.core.errors import BadInput
from alignarena.evaluators.exact.reviser import WorldReviser, kernel, place_principles, revision
from alignarena.evaluators.exact.world import World, prompt_text
from alignarena.paper_lab import PaperLab

WORLD = World(tokens=3, length=3)
PROMPT = WORLD.trained[0]
LEAVES = WORLD.leaves


def rows(*texts: str, reason: str = "stop") -> Dataset:
    shared = {"prompt": prompt_text(PROMPT), "finish_reason": reason, "completion_ids": [0], "logps": [0.0]}
    return Dataset.from_list([{"prompt_id": str(i), "completion": text, **shared} for i, text in enumerate(texts)])


def leaf(*tokens: int) -> int:
    ids = [*tokens, WORLD.tokens]
    return int(LEAVES.place(np.array([ids + [WORLD.tokens + 1] * (WORLD.length - len(ids))]))[0])


def test_a_word_becomes_the_best_one_in_its_place() -> None:
    opinion, becomes = WORLD.opinion(PROMPT), revision(WORLD, PROMPT, 0)
    best = max(range(3), key=lambda token: opinion[leaf(token, 2)])
    assert {becomes[leaf(token, 2)] for token in range(3)} == {leaf(best, 2)}
    assert becomes[leaf()] == leaf()  # nothing stands there
    assert revision(WORLD, PROMPT, 1)[leaf(1)] == leaf(1)
    cut = np.flatnonzero(~LEAVES.finished)
    np.testing.assert_array_equal(becomes[cut], cut)
    assert (opinion[becomes] >= opinion).all()


def test_the_kernel_draws_places_evenly() -> None:
    matrix = kernel(WORLD, PROMPT).toarray()
    np.testing.assert_allclose(matrix.sum(1), 1)
    moves = [revision(WORLD, PROMPT, place)[leaf(1, 2)] for place in range(2)]
    wanted = np.zeros(len(LEAVES))
    for move in moves:
        wanted[move] += 0.5
    np.testing.assert_allclose(matrix[leaf(1, 2)], wanted)


def test_rows_are_revised_as_the_kernel_says() -> None:
    reviser, principles = WorldReviser(WORLD), place_principles(WORLD)
    assert len(principles) == 2
    asked = rows(*["t1 t2"] * 400)
    made = reviser.revise(asked, principles, PaperLab(), stream="one").to_list()
    texts = [row["completion"] for row in made]
    matrix = kernel(WORLD, PROMPT).toarray()[leaf(1, 2)]
    for text in set(texts):
        place = leaf(*(int(word[1:]) for word in text.split()))
        assert texts.count(text) / 400 == pytest.approx(matrix[place], abs=0.1)
    assert all(row["revised"] and "completion_ids" not in row for row in made)
    assert {row["principle"] for row in made} == {one.critique_request for one in principles}
    best = int(revision(WORLD, PROMPT, 0)[revision(WORLD, PROMPT, 1)[leaf(1, 2)]])
    assert [row["changed"] for row in made] == [text != "t1 t2" for text in texts] and best >= 0


def test_its_opinion_is_the_labelers() -> None:
    noisy = replace(WORLD, labeler_noise=5.0)
    assert any((revision(noisy, p, 0) != revision(WORLD, p, 0)).any() for p in WORLD.combinations)


def test_what_is_cut_stays_and_is_no_revision() -> None:
    cut = rows("t0 t1 t2", reason="length")
    (row,) = WorldReviser(WORLD).revise(cut, place_principles(WORLD), PaperLab(), stream="a")
    assert (row["completion"], row["revised"], row["finish_reason"]) == ("t0 t1 t2", False, "length")


def test_other_principles_are_refused() -> None:
    with pytest.raises(BadInput, match="no principle of the exact world"):
        WorldReviser(WORLD).revise(rows("t1"), (Principle("Is it curt?", "Be kind."),), PaperLab(), stream="a")
    with pytest.raises(BadInput, match="name 'word 1' to 'word 2'"):
        WorldReviser(WORLD).revise(rows("t1"), (Principle("word 3?", "Other."),), PaperLab(), stream="a")
