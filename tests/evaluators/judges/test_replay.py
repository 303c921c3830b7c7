"""Verdicts on record: AlpacaEval's annotations and a plain schema give the same answers again."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from alignarena.core.errors import BadInput
from alignarena.evaluators.judges.pairs import Pair
from alignarena.evaluators.judges.replay import ReplayJudge, recorded


def alpaca(path: Path, *preferences: Any) -> ReplayJudge:
    rows = [{"instruction": f"p{i}", "output_1": "base", "output_2": "model", "generator_2": "m", "annotator": "x",
             "preference": one} for i, one in enumerate(preferences)]  # fmt: skip
    path.write_text(json.dumps(rows))
    return ReplayJudge(str(path))


def test_alpaca_eval_preferences(tmp_path: Path) -> None:
    judge = alpaca(tmp_path / "annotations.json", 1, 2, 1.5, 0, 1.75, math.nan, None)
    answers = judge.answers([Pair(f"p{i}", "base", "model") for i in range(8)])
    assert [one.probability for one in answers] == [1.0, 0.0, 0.5, 0.5, 0.25, None, None, None]
    assert answers[5].missing == answers[7].missing == "not in the file of recorded verdicts"
    assert judge.answers([Pair("p4", "model", "base")])[0].probability == 0.75  # whichever side it is asked from
    assert answers[0].orders is None  # recorded in one order: says nothing of places
    # the win rate AlpacaEval would print: the mean preference less 1 of what was annotated
    wins = [1 - p for _, p in recorded(tmp_path / "annotations.json") if p is not None]
    assert math.fsum(wins) / len(wins) == pytest.approx((0 + 1 + 0.5 + 0.5 + 0.75) / 5)


@pytest.mark.parametrize("name", ["v.jsonl", "v.csv"])
def test_a_plain_schema(name: str, tmp_path: Path) -> None:
    rows = [("p0", "x, y", "y", "a"), ("p1", "x", "y", "tie"), ("p2", "x", "y", "2")]
    if name.endswith("csv"):
        text = "\ufeffprompt,a,b,winner\n" + "".join(f'{p},"{a}",{b},{w}\n' for p, a, b, w in rows)
    else:
        text = "".join(json.dumps(dict(zip(("prompt", "a", "b", "winner"), row, strict=True))) + "\n" for row in rows)
    (tmp_path / name).write_text(text, encoding="utf-8")
    answers = ReplayJudge(str(tmp_path / name)).answers([Pair(p, a, b) for p, a, b, _ in rows])
    assert [one.probability for one in answers] == [1.0, 0.5, 0.0]


def test_both_orders_and_several_raters(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "a": a, "b": b, "probability": p} for a, b, p in
            (("x", "y", 0.8), ("x", "y", 0.6), ("y", "x", 0.5))]  # fmt: skip
    (tmp_path / "v.json").write_text(json.dumps(rows))
    (answer,) = ReplayJudge(str(tmp_path / "v.json")).answers([Pair("p", "x", "y")])
    assert answer.orders == pytest.approx((0.7, 0.5)) and answer.probability == pytest.approx(0.6)


@pytest.mark.parametrize(("row", "said"), [
    ({"prompt": "p", "a": "x", "b": "y"}, "no verdict in it"),
    ({"prompt": "p", "a": "x", "b": "y", "winner": "c"}, "winner 'c' is not a, b or tie"),
    ({"prompt": "p", "a": "x", "b": "y", "probability": 2}, "probability 2.0 is out of range"),
    ({"prompt": "p", "a": "x", "b": "y", "probability": "much"}, "'much' is not a number"),
    ({"instruction": "p", "output_1": "x", "output_2": "y", "preference": 3}, "out of range"),
    ({"prompt": "p", "a": "x", "winner": "a"}, "column 'b' is missing"),
])  # fmt: skip
def test_a_record_that_says_nothing_is_named(row: dict[str, Any], said: str, tmp_path: Path) -> None:
    (tmp_path / "v.json").write_text(json.dumps([row]))
    with pytest.raises(BadInput, match=said) as caught:
        list(recorded(tmp_path / "v.json"))
    assert "record 1" in str(caught.value)
    with pytest.raises(BadInput, match="does not exist"):
        list(recorded(tmp_path / "none.json"))
