"""People's journals: the last verdict on a pair stands, and a killed writer costs nothing but its half line."""

from dataclasses import replace
from pathlib import Path

import pytest

from alignarena.core.errors import BadInput
from alignarena.results.people import Person, Verdict, people

ONE = Verdict("k1", "ann", "a", "b", "dpo", 0, "p1", 0, "prompt", "mine", "sft's")
TWO = replace(ONE, pair="k2", winner="tie", first="a")


def test_the_last_verdict_stands_and_one_taken_back_does_not(tmp_path: Path) -> None:
    person = Person(tmp_path, "ann")
    person.add([ONE])
    person.add([TWO])
    person.add([replace(ONE, winner="b")])
    person.add([replace(TWO, winner=None)])
    for read in (person, Person(tmp_path, "ann")):
        assert read.standing == {"k1": replace(ONE, winner="b")}
    assert person.path.read_text().count("\n") == 4


def test_equal_texts_were_not_asked(tmp_path: Path) -> None:
    person = Person(tmp_path, "ann")
    person.add([replace(TWO, first=None), ONE])
    assert person.asked == [ONE] and len(person.standing) == 2


def test_a_half_line_of_a_killed_writer_is_cut_off(tmp_path: Path) -> None:
    Person(tmp_path, "ann").add([ONE])
    path = tmp_path / "people" / "ann.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:40])
    person = Person(tmp_path, "ann")
    assert list(person.standing) == ["k1"]
    person.add([TWO])
    assert list(Person(tmp_path, "ann").standing) == ["k1", "k2"]


def test_everyone_by_name(tmp_path: Path) -> None:
    assert people(tmp_path) == []
    for name in ("cid", "ann"):
        Person(tmp_path, name).add([ONE])
    assert [person.name for person in people(tmp_path)] == ["ann", "cid"]


@pytest.mark.parametrize("name", ["", "../x", "a b", "-a", ".a", "ann/1", "x" * 41, "\u00e4"])
def test_a_name_is_that_of_a_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput, match="at most 40 letters"):
        Person(tmp_path, name)


def test_another_kind_of_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "people").mkdir()
    (tmp_path / "people" / "ann.jsonl").write_text('{"pair": "k1"}\n')
    with pytest.raises(BadInput, match=r"ann.jsonl, line 1: no verdict"):
        Person(tmp_path, "ann")
