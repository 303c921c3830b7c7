"""How far a judge can be relied on: its agreement with people, beside theirs and that of judges that read nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alignarena.evaluators.judges.baselines import First, Longer
from alignarena.evaluators.judges.files import Labelled, read_labelled
from alignarena.evaluators.judges.pairs import Answer, PairJudge, orders_read
from alignarena.results import agreement
from alignarena.results.agreement import People
from alignarena.results.stats import bootstrap_interval


@dataclass(frozen=True)
class _Judged:
    """Pairs with what people and the judge said of them."""

    pairs: list[Labelled]
    answers: list[Answer]

    @property
    def people(self) -> list[People]:
        return [People(one.labels) for one in self.pairs]

    @property
    def majorities(self) -> list[int | None]:
        return [one.majority for one in self.people]

    @property
    def probabilities(self) -> list[float]:
        return [np.nan if one.probability is None else one.probability for one in self.answers]

    @property
    def sides(self) -> list[int | None]:
        return [None if one.probability is None else agreement.side_of(one.probability) for one in self.answers]

    def subset(self, strength: str) -> _Judged:
        kept = [i for i, one in enumerate(self.people) if one.strength == strength]
        return _Judged([self.pairs[i] for i in kept], [self.answers[i] for i in kept])


def validate(judge: PairJudge, path: str | Path) -> dict[str, Any]:
    """Compare a judge with people on a file of labelled pairs.

    Args:
        judge: Any judge.
        path: See :func:`alignarena.evaluators.judges.files.read_labelled`.

    Returns:
        What ``docs/evaluation.md`` lists under "Judges"; NaN where a number is undefined.

    Raises:
        BadInput: The file does not fit.
    """
    pairs = read_labelled(path)
    judged = _Judged(pairs, judge.answers([one.pair for one in pairs]))
    return {
        "judge": judge.name,
        "file": str(path),
        "pairs": len(pairs),
        **with_people(pairs, judged.answers),
        **_with_itself(judged),
        **_counts(judged.answers),
        "by_strength": _by_strength(judged),
        "baselines": [_baseline(one, pairs) for one in (Longer(), First())],
        "people": _people(judged.people),
    }


def with_people(pairs: list[Labelled], answers: list[Answer]) -> dict[str, Any]:
    """Return how a judge's answers agree with the majority of the people who labelled each pair; NaN if undefined."""
    judged = _Judged(pairs, answers)
    agrees = agreement.agreement(judged.probabilities, judged.majorities)
    same = [(side, other) for side, other in zip(judged.sides, judged.majorities, strict=True)
            if side is not None and other is not None]  # fmt: skip
    prompts = [pair.pair.prompt for pair, own, other in zip(judged.pairs, judged.sides, judged.majorities, strict=True)
               if own is not None and other in (1, 2)]  # fmt: skip
    interval = bootstrap_interval(agrees, prompts)
    return {
        "agreement": interval.mean,
        "agreement_low": interval.low,
        "agreement_high": interval.high,
        "n": len(agrees),
        "agreement_with_ties": float(np.mean([a == b for a, b in same])) if same else np.nan,
        "n_with_ties": len(same),
        "kappa": agreement.cohen_kappa([a for a, _ in same], [b for _, b in same]),
    }


def _with_itself(judged: _Judged) -> dict[str, Any]:
    orders = orders_read(judged.answers)
    lengths = [(len(one.pair.a), len(one.pair.b)) for one in judged.pairs]
    strict = [i for i, side in enumerate(judged.majorities) if side in (1, 2) and judged.sides[i] is not None]
    shares = [agreement.longer_share([who[i] for i in strict], [lengths[i] for i in strict])
              for who in (judged.sides, judged.majorities)]  # fmt: skip
    return {
        "position_bias": agreement.position_bias(orders),
        "swap_consistency": agreement.swap_consistency(orders),
        "length_bias": shares[0] - shares[1],
        "prefers_longer": shares[0],
        "people_prefer_longer": shares[1],
    }


def _counts(answers: Sequence[Answer]) -> dict[str, Any]:
    return {
        "unreadable": sum(one.unreadable for one in answers),
        "missing": dict(Counter(one.missing for one in answers if one.missing)),
        "ruled": sum(one.ruled for one in answers),
        "suspects": dict(Counter(sign for one in answers for sign in one.suspects)),
    }


def _by_strength(judged: _Judged) -> list[dict[str, Any]]:
    rows = list[dict[str, Any]]()
    for strength in sorted({one.strength for one in judged.people}, reverse=True):
        part = judged.subset(strength)
        agrees = agreement.agreement(part.probabilities, part.majorities)
        mean = float(agrees.mean()) if len(agrees) else np.nan
        rows.append({"strength": strength, "n": len(agrees), "agreement": mean})
    return rows


def _baseline(judge: PairJudge, pairs: list[Labelled]) -> dict[str, Any]:
    found = with_people(pairs, judge.answers([one.pair for one in pairs]))
    return {"judge": judge.name, **{name: found[name] for name in ("agreement", "agreement_with_ties", "kappa")}}


def _people(people: Sequence[People]) -> dict[str, Any]:
    ratings = [one.labels for one in people]
    return {"agreement": agreement.pairwise(ratings), "fleiss_kappa": agreement.fleiss_kappa(ratings)}


def as_rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what a validation found as rows ``measure, value, n``, to be read."""
    names = ("agreement", "agreement_with_ties", "kappa", "position_bias", "swap_consistency", "length_bias")
    sizes = {"agreement": found["n"], "agreement_with_ties": found["n_with_ties"], "kappa": found["n_with_ties"]}
    rows = [_row(name.replace("_", " "), found[name], sizes.get(name, found["pairs"])) for name in names]
    strengths = found["by_strength"]
    rows += [_row(f"agreement where {one['strength']} agree", one["agreement"], one["n"]) for one in strengths]
    rows += [_row(f"agreement of {one['judge']}", one["agreement"], found["n"]) for one in found["baselines"]]
    people = found["people"]
    rows += [_row(f"agreement of people {who}", share, found["pairs"]) for who, share in people["agreement"].items()]
    rows += [_row("Fleiss kappa of people", people["fleiss_kappa"], found["pairs"])]
    counted = {"unreadable": found["unreadable"], **found["missing"], **found["suspects"]}
    return rows + [_row(name, count, None) for name, count in counted.items()]


def _row(measure: str, value: float, n: int | None) -> dict[str, Any]:
    return {"measure": measure, "value": round(value, 3), "n": n}
