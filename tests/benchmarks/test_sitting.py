"""One person at work: no verdict twice or lost, and nothing that tells who wrote what."""

from pathlib import Path
from typing import Any

import pytest

from alignarena.benchmarks.blind import Drawn
from alignarena.benchmarks.sitting import AT_ONCE, Sitting
from alignarena.core.errors import BadInput
from alignarena.evaluators.judges.pairs import Pair
from alignarena.results.people import Person


@pytest.fixture
def person(tmp_path: Path) -> Person:
    return Person(tmp_path, "ann")


def some(count: int, equal: tuple[int, ...] = ()) -> list[Drawn]:
    """Pairs of which those at the places ``equal`` have the same text twice."""
    texts = [(f"mine {i}", f"mine {i}" if i in equal else f"sft's {i}") for i in range(count)]
    return [Drawn(Pair(f"prompt {i}", *both), "dpo", 0, f"p{i}", 0) for i, both in enumerate(texts)]


def test_a_choice_of_place_becomes_a_verdict_on_a_text(person: Person) -> None:
    drawn = {one.key: one for one in some(40)}
    sitting = Sitting(list(drawn.values()), person)
    for choice in ("first", "second", "tie", "first") * 10:
        shown = sitting.state()["pairs"][0]
        sitting.judge(shown["pair"], choice)
        noted, pair = person.standing[shown["pair"]], drawn[shown["pair"]].pair
        texts = {"a": pair.a, "b": pair.b, "tie": "tie"}
        assert noted.first is not None and shown["first"] == texts[noted.first]
        assert texts[str(noted.winner)] == shown.get(choice, "tie")
    assert {one.first for one in person.asked} == {"a", "b"} and sitting.complete


def test_places_are_drawn_for_each_person(tmp_path: Path) -> None:
    def places(name: str) -> list[str]:
        sitting = Sitting(some(10), Person(tmp_path, name))
        return [one["first"] for one in sitting.state()["pairs"]]

    assert places("ann") == places("ann") != places("bob")


def test_nothing_tells_who_wrote_it(person: Person) -> None:
    def fields(value: Any) -> set[str]:
        return {name for one in value for name in one}

    sitting = Sitting(some(3), person)
    state = sitting.judge(sitting.state()["pairs"][0]["pair"], "tie")
    assert set(state) == {"done", "total", "pairs", "judged"}
    assert fields(state["pairs"]) == fields(state["judged"]) == {"pair", "prompt", "first", "second"}


def test_said_twice_it_is_noted_once(person: Person) -> None:
    sitting = Sitting(some(3), person)
    key = sitting.state()["pairs"][0]["pair"]
    states = [sitting.judge(key, "first") for _ in range(3)]
    assert states[0] == states[2] and person.path.read_text().count("\n") == 1
    assert states[0]["done"] == 1 and [one["pair"] for one in states[0]["judged"]] == [key]


def test_taken_back_it_comes_again_first(person: Person) -> None:
    sitting = Sitting(some(3), person)
    first, second, _ = (one["pair"] for one in sitting.state()["pairs"])
    sitting.judge(first, "first")
    sitting.judge(second, "second")
    state = sitting.judge(second, None)
    assert state["pairs"][0]["pair"] == second and state["done"] == 1
    state = sitting.judge(first, None)
    assert state["pairs"][0]["pair"] == first and state["done"] == 0
    assert sitting.judge(first, None) == state and person.path.read_text().count("\n") == 4  # nothing to take back


def test_equal_texts_are_a_tie_as_far_as_the_person_has_come(person: Person) -> None:
    drawn = some(6, equal=(0, 2, 5))
    sitting = Sitting(drawn, person)
    assert sitting.state()["total"] == 3
    sitting.judge(drawn[3].key, "tie")
    noted = {key: (one.winner, one.first) for key, one in person.standing.items()}
    assert noted.pop(drawn[0].key) == noted.pop(drawn[2].key) == ("tie", None)
    assert set(noted) == {drawn[3].key} and len(person.asked) == 1
    assert sitting.state()["done"] == 1


def test_the_page_has_a_few_pairs_ahead_and_behind(person: Person) -> None:
    drawn = some(30)
    sitting = Sitting(drawn, person)
    for one in drawn[:15]:
        state = sitting.judge(one.key, "first")
    assert [one["pair"] for one in state["judged"]] == [one.key for one in drawn[5:15]]
    assert [one["pair"] for one in state["pairs"]] == [one.key for one in drawn[15 : 15 + AT_ONCE]]


def test_bad_verdicts_change_nothing(person: Person) -> None:
    drawn = some(2)
    sitting = Sitting(drawn, person)
    for key, choice in (("unknown", "first"), (drawn[0].key, "third"), (drawn[0].key, ["first"])):
        with pytest.raises(BadInput):
            sitting.judge(key, choice)  # type: ignore[arg-type]
    assert not person.path.exists()
