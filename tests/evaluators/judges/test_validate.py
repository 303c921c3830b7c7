"""A judge beside people: built-in judges have numbers that can be told in advance."""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from alignarena import cli
from alignarena.core.errors import BadInput
from alignarena.evaluators.judges.baselines import First, Longer, Random
from alignarena.evaluators.judges.pairs import Answer, Pair, in_both_orders
from alignarena.evaluators.judges.registry import find_judge
from alignarena.evaluators.judges.validate import as_rows, validate

DATA = Path(os.environ.get("ALIGNARENA_DATA") or Path(__file__).parents[4] / "shared" / "data")
PANDALM = DATA / "pandalm" / "testset-v1.json"
ROWS = [  # response1, response2, three labels
    ("long one", "short", (1, 1, 1)),
    ("short", "long one", (2, 2, 1)),
    ("long one", "short", (2, 2, 2)),
    ("same", "size", (1, 1, 2)),
    ("long one", "short", (0, 0, 0)),
    ("short", "long one", (0, 1, 2)),
]


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    names = ("annotator1", "annotator2", "annotator3")
    rows = [{"instruction": "do", "input": f"{i}", "response1": a, "response2": b,
             **dict(zip(names, labels, strict=True))} for i, (a, b, labels) in enumerate(ROWS)]  # fmt: skip
    path = tmp_path / "people.json"
    path.write_text(json.dumps(rows))
    return path


def test_longer_by_hand(labelled: Path) -> None:
    found = validate(Longer(), labelled)
    assert (found["agreement"], found["n"]) == ((1 + 1 + 0 + 0.5) / 4, 4)  # ties of people left out
    assert (found["agreement_with_ties"], found["n_with_ties"]) == (2 / 5, 5)  # without a majority there is no side
    # judge 1 2 1 0 1 against 1 2 2 1 0: po = .4, pe = (3x2 + 1x2 + 1x1) / 25 = .36
    assert found["kappa"] == pytest.approx((0.4 - 0.36) / (1 - 0.36))
    assert (found["position_bias"], found["swap_consistency"]) == (0.0, 1.0)
    assert (found["prefers_longer"], found["people_prefer_longer"]) == (1.0, 2 / 3)
    assert found["length_bias"] == pytest.approx(1 / 3)
    strengths = [(one["strength"], one["n"], one["agreement"]) for one in found["by_strength"]]
    assert strengths[:2] == [("3 of 3", 2, 0.5), ("2 of 3", 2, 0.75)]
    assert strengths[2][:2] == ("1 of 3", 0) and math.isnan(strengths[2][2])
    assert found["people"]["agreement"]["1 and 2"] == 5 / 6
    assert found["people"]["fleiss_kappa"] == pytest.approx(_fleiss([labels for _, _, labels in ROWS]))


def _fleiss(ratings: Sequence[Sequence[int]]) -> float:
    """methods.md 15.9, written out."""
    counts = [[one.count(side) for side in (0, 1, 2)] for one in map(list, ratings)]
    n = len(ratings[0])
    each = [(sum(c * c for c in one) - n) / (n * (n - 1)) for one in counts]
    shares = [sum(one[side] for one in counts) / (n * len(counts)) for side in range(3)]
    chance = sum(share * share for share in shares)
    return (sum(each) / len(each) - chance) / (1 - chance)


def test_first_says_nothing(labelled: Path) -> None:
    found = validate(First(), labelled)
    assert (found["agreement"], found["position_bias"], found["swap_consistency"]) == (0.5, 1.0, 0.0)


def test_random_is_the_same_coin_again(labelled: Path) -> None:
    pairs = [Pair("p", f"a{i}", f"b{i}") for i in range(400)]
    answers = Random().answers(pairs)
    assert answers == Random().answers(pairs) != Random(seed=1).answers(pairs)
    heads = sum(one.orders[0] for one in answers if one.orders)
    assert 160 < heads < 240


def test_missing_answers_are_counted(labelled: Path) -> None:
    class Silent(Longer):
        def answers(self, pairs: Sequence[Pair]) -> list[Answer]:
            return [Answer(None, missing="no connection") for _ in pairs]

    found = validate(Silent(), labelled)
    assert found["n"] == 0 and found["missing"] == {"no connection": 6}
    assert all(math.isnan(found[name]) for name in ("agreement", "kappa", "position_bias", "length_bias"))


def test_a_judge_agrees_with_itself_on_what_it_said_in_both_orders(labelled: Path) -> None:
    class Mumbles(Longer):
        def answers(self, pairs: Sequence[Pair]) -> list[Answer]:
            silent, half, firm = in_both_orders(0.5, 0.5, 2), in_both_orders(0.5, 1.0, 1), in_both_orders(1.0, 1.0)
            return [silent, half, firm, *[silent] * (len(pairs) - 3)]

    found = validate(Mumbles(), labelled)
    assert (found["swap_consistency"], found["position_bias"]) == (0.0, 1.0)  # of the firm one alone
    assert found["unreadable"] == 9


def test_one_person_and_hh_pairs(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "p", "chosen": "long one", "rejected": "no"}\n')
    found = validate(Longer(), path)
    assert found["agreement"] == 1.0 and found["people"]["agreement"] == {}
    assert math.isnan(found["people"]["fleiss_kappa"]) and math.isnan(found["kappa"])


@pytest.mark.parametrize(("text", "said"), [
    ('{"prompt": "p"}', "no completions in it"), ('{"a": "x", "b": "y", "label": 1}', "'instruction' is missing"),
    ('{"prompt": "p", "a": "x", "b": "y", "label": 3}', "3 is not a label"), ("", "no pairs in it"),
])  # fmt: skip
def test_a_file_that_does_not_fit_is_named(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(text)
    with pytest.raises(BadInput, match=said):
        validate(Longer(), tmp_path / "x.jsonl")


@pytest.mark.parametrize(("spec", "settings", "said"), [
    ("longr", {}, "did you mean 'longer'"), ("api", {}, "name its model, as in api:MODEL"),
    ("longer:x", {}, "takes nothing behind a colon"), ("gold", {}, "is that of a run"),
    ("api:m", {"base_ur": "x"}, "did you mean 'base_url'"), ("api:m", {"concurrency": "many"}, "concurrency"),
])  # fmt: skip
def test_a_wrong_judge_is_named(spec: str, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        find_judge(spec, settings)


def test_settings_of_a_command_line_are_typed() -> None:
    judge: Any = find_judge("api:org/m", {"timeout": "3", "thinking": "true", "goal": "Be brief."})
    assert (judge.timeout, judge.thinking, judge.goal, judge.name) == (3.0, True, "Be brief.", "m-thinking-b1cc2e")


def test_the_verb(labelled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["validate-judge", "longer", str(labelled), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    names = {"agreement", "agreement_with_ties", "n", "kappa", "position_bias", "swap_consistency", "length_bias"}
    assert names <= found.keys() and found["by_strength"][2]["agreement"] is None  # NaN is null
    assert cli.main(["validate-judge", "longer", str(labelled)]) == 0
    said = capsys.readouterr().out
    assert "agreement of first" in said and "Fleiss kappa of people" in said
    assert all(isinstance(row["value"], float | int) for row in as_rows(validate(Longer(), labelled)))
    assert cli.main(["validate-judge", "longer", "none.json"]) == 2


@pytest.mark.skipif(not PANDALM.is_file(), reason="no PandaLM test set (set ALIGNARENA_DATA)")
def test_pandalm() -> None:
    found = validate(Longer(), PANDALM)
    assert found["agreement"] == pytest.approx(0.67, abs=0.005) and found["n"] == 894
    assert found["people"]["agreement"]["1 and 2"] == pytest.approx(0.913, abs=0.0005)
    assert [one["judge"] for one in found["baselines"]] == ["longer", "first"]
