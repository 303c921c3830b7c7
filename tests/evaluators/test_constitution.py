"""Constitutions: the built-in ones, reading one's own, and errors that name file and line."""

from collections import Counter
from pathlib import Path

import pytest

from alignarena.core.contract import Principle
from alignarena.core.errors import BadInput
from alignarena.evaluators.constitution import BUILT_IN, draw, read_constitution
from alignarena.paper_lab import PaperLab

GOOD = """# mine
principles:
  - critique_request: Is it curt?
    revision_request: Make it kind.
  - {critique_request: "Is it false?", revision_request: Make it true., comparison: Be truthful.}
"""


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", [file.stem for file in BUILT_IN.glob("*.yaml")])
def test_the_built_in_ones_are_long_and_say_everything_once(name: str) -> None:
    principles = read_constitution(name)
    assert len(principles) >= 12
    assert all(one.comparison for one in principles)
    for field in ("critique_request", "revision_request", "comparison"):
        assert len({getattr(one, field) for one in principles}) == len(principles)


def test_ones_own_is_read_in_order(written: Path) -> None:
    first, second = read_constitution(str(written))
    assert first == Principle("Is it curt?", "Make it kind.")
    assert (first.criterion, second.criterion) == ("Is it curt?", "Be truthful.")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("critique_request: Is it curt?", "critique_reqest: Is it curt?", r"3: unknown key 'critique_reqest'; did you"),
        ("    revision_request: Make it kind.\n", "", r"3: missing key 'revision_request'"),
        ("Make it kind.", "1", r"3: revision_request: expected str, got int 1"),
        ("Make it kind.", "' '", r"3: revision_request is empty"),
        ("principles:", "principles: [", r"\d+: not valid YAML"),
        ("principles:", "principle:", r"1: a constitution has the key 'principles' alone"),
        (GOOD, "principles: []", r"1: principles: expected a list of at least one"),
        (GOOD, "principles:\n- Be kind.", r"2: expected a mapping of Principle fields"),
        (GOOD, "principles: [!!python/object:os.system {}]", r"1: not valid YAML: could not determine a constructor"),
        (GOOD, "", r"1: a constitution has the key"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(written: Path, old: str, new: str, said: str) -> None:
    assert old in GOOD
    written.write_text(GOOD.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(BadInput, match=rf"mine\.yaml:({said})"):
        read_constitution(str(written))


def test_an_unknown_name_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="unknown constitution 'harmles'; did you mean 'harmless'"):
        read_constitution("harmles")
    with pytest.raises(BadInput, match="cannot be read: No such file"):
        read_constitution(str(tmp_path / "none.yaml"))
    (tmp_path / "latin.yaml").write_bytes("principles: [\xe9]".encode("latin-1"))
    with pytest.raises(BadInput, match="not valid YAML"):
        read_constitution(str(tmp_path / "latin.yaml"))


def test_every_principle_is_drawn_as_often_by_names_alone() -> None:
    principles, lab = read_constitution("harmless"), PaperLab()
    drawn = Counter(draw(principles, lab, "a", i).critique_request for i in range(1400))
    assert len(drawn) == 14 and all(60 < count < 140 for count in drawn.values())
    assert draw(principles, lab, "a", 3) == draw(principles, PaperLab(), "a", 3)
    assert [draw(principles, lab, "a", i) for i in range(9)] != [draw(principles, lab, "b", i) for i in range(9)]
