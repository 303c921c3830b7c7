"""Verdicts that are on record: an old comparison is analysed again without any model, and people are a judge."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from alignarena.core.errors import BadInput
from alignarena.evaluators.judges.files import prompt_of, read_records, text_of
from alignarena.evaluators.judges.pairs import Answer, Pair, in_both_orders

_WINNERS = {"a": 1.0, "1": 1.0, "b": 0.0, "2": 0.0, "tie": 0.5, "0": 0.5}
_NOT_RECORDED = "not in the file of recorded verdicts"


@dataclass(frozen=True)
class ReplayJudge:
    """Looks verdicts up in a file: AlpacaEval's annotation JSON, or JSONL, JSON or CSV of ``prompt, a, b``."""

    path: str
    kind: str = "replay"  # human: people gave them
    role: str = "verdict"
    model: str = ""
    how: str = ""

    @property
    def name(self) -> str:
        """What it is and the file's stem."""
        return f"{self.kind}-{Path(self.path).stem}"

    @property
    def lineage(self) -> frozenset[str]:
        """Whoever gave the verdicts."""
        return frozenset({f"{self.kind} {Path(self.path).name}"})

    def answers(self, pairs: Sequence[Pair]) -> list[Answer]:
        """Look pairs up, in both orders."""
        return [self._answer(pair) for pair in pairs]

    def _answer(self, pair: Pair) -> Answer:
        given, swapped = self._recorded.get(pair), self._recorded.get(pair.swapped())
        if given is None and swapped is None:
            return Answer(None, missing=_NOT_RECORDED)
        if given is not None and swapped is not None:
            return in_both_orders(given, swapped)
        return Answer(given if given is not None else 1.0 - (swapped or 0.0))

    @cached_property
    def _recorded(self) -> dict[Pair, float]:
        """The mean verdict on each pair in the order it was recorded in: several raters of one pair are averaged."""
        found: dict[Pair, list[float]] = {}
        for pair, probability in recorded(self.path):
            if probability is not None:
                found.setdefault(pair, []).append(probability)
        return {pair: math.fsum(values) / len(values) for pair, values in found.items()}


def recorded(path: str | Path) -> Iterable[tuple[Pair, float | None]]:
    """Yield each recorded pair with the probability that a is better; None where the annotator gave no verdict.

    AlpacaEval's ``preference`` (instruction, output_1, output_2) is 1 where output_1 wins, 2 where output_2 does, 1.5
    or 0 for a draw, between them where soft, and null or NaN where it failed. Elsewhere ``probability`` or ``winner``
    (a, b, tie; or 1, 2, 0).

    Raises:
        BadInput: A record has no verdict column, or one out of range.
    """
    for number, record in enumerate(read_records(path), start=1):
        where = f"{path}, record {number}"
        yield _pair(record, where), _probability(record, where)


def _pair(record: Mapping[str, Any], where: str) -> Pair:
    sides = ("output_1", "output_2") if "output_1" in record else ("a", "b")
    return Pair(prompt_of(record, where), *(text_of(record, side, where) for side in sides))


def _probability(record: Mapping[str, Any], where: str) -> float | None:
    if "preference" in record:
        preference = _number(record["preference"], f"{where}: preference")
        if preference is None:
            return None
        return 0.5 if preference == 0 else _within(2.0 - preference, f"{where}: preference {preference}")
    if "probability" in record:
        probability = _number(record["probability"], f"{where}: probability")
        return None if probability is None else _within(probability, f"{where}: probability {probability}")
    if "winner" in record:
        winner = str(record["winner"]).strip().lower()
        if winner not in _WINNERS:
            raise BadInput(f"{where}: winner {record['winner']!r} is not a, b or tie")
        return _WINNERS[winner]
    raise BadInput(f"{where}: no verdict in it; give preference (AlpacaEval), probability or winner")


def _number(value: Any, where: str) -> float | None:
    if value is None or value == "":
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise BadInput(f"{where}: {value!r} is not a number") from None
    return None if math.isnan(number) else number


def _within(probability: float, where: str) -> float:
    if not 0.0 <= probability <= 1.0:
        raise BadInput(f"{where} is out of range (preferences are 1 to 2, or 0; probabilities 0 to 1)")
    return probability
