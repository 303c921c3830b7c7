"""What people's verdicts say: win rates as of any judge, how people agree with each other, and judges with them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import Any

from alignarena.benchmarks.judging import judge
from alignarena.core.files import read_json, write_jsonl
from alignarena.evaluators.judges.files import Labelled
from alignarena.evaluators.judges.pairs import Answer, Pair
from alignarena.evaluators.judges.validate import with_people
from alignarena.results import agreement
from alignarena.results.folders import BASELINE
from alignarena.results.people import Person, Verdict, people
from alignarena.results.store import RunFolder

RECORDED = "people.jsonl"  # the standing verdicts of everyone, as `human:FILE` reads them
_METRIC = "judge_human_people"  # what that judge is called in scores
_SIDES = {"a": 1, "b": 2, "tie": 0}
_SCORES = ("gold", "ai_judge")  # of one completion: the pair's side is that of the higher
_PEOPLE = ["judge", "verdicts", "ties", "for the first place"]
_BESIDE = ["people", "beside", "pairs", "agreement", "low", "high", "agreement with ties", "kappa"]

Said = Mapping[str, tuple[Verdict, tuple[int, ...]]]  # by pair: the pair, and the sides that people took


def count(run_dir: str | Path) -> list[dict[str, Any]]:
    """Add everyone's verdicts to a run's scores and tables.

    Returns:
        The tables ``title, caption, columns, rows``: win rates, people, and agreement; none where nobody has judged.

    Raises:
        BadInput: Not a run folder, or a damaged journal.
    """
    folder = RunFolder.open(run_dir)
    everyone = [person for person in people(folder.path) if person.standing]
    if not everyone:
        return []
    given = [verdict for person in everyone for verdict in person.standing.values()]
    write_jsonl(folder.path / RECORDED, [asdict(verdict) for verdict in given])
    judge(folder.path, f"human:{folder.path / RECORDED}")
    tables = {"people": _of_people(everyone), "people_beside": _beside(folder, everyone)}
    for name, table in tables.items():
        folder.write_json(f"extra/{name}.json", table)
    return [read_json(folder.path / "extra" / f"{_METRIC}.json"), *tables.values()]


def _of_people(everyone: Sequence[Person]) -> dict[str, Any]:
    caption = (
        "Whose verdicts they are. For the first place: the share of the verdicts for one side that went to what stood "
        "first; places are drawn, so far from .5 it is a habit. Pairs of equal texts are a tie without asking."
    )
    rows = [[person.name, len(person.asked), *_habits(person.asked)] for person in everyone]
    return {"title": "People", "caption": caption, "columns": _PEOPLE, "rows": rows}


def _habits(verdicts: Sequence[Verdict]) -> tuple[int, float | None]:
    """Return the ties, and the share of the others that went to the first place."""
    sided = [one for one in verdicts if one.winner != "tie"]
    return len(verdicts) - len(sided), _known(sum(one.winner == one.first for one in sided) / (len(sided) or math.nan))


def _beside(folder: RunFolder, everyone: Sequence[Person]) -> dict[str, Any]:
    asked = {person.name: {one.pair: one for one in person.asked} for person in everyone}
    rows = [_between(one, other, asked) for one, other in combinations(asked, 2)]
    if len(asked) > 2:
        rows.append(_among_all(asked))
    said = _said(asked)
    who = "majority" if len(asked) > 1 else next(iter(asked))
    rows += [_with(who, name, said, answer) for name, answer in _judges(folder).items()]
    caption = (
        "How people agree, and judges with them. Agreement: the share of pairs on which people took a side and the "
        "judge took the same, its ties half, with its 95 % interval; with ties: the share of all pairs on which both "
        "said the same. Kappa: Cohen's of two, Fleiss' of all on the pairs that everyone judged. No judge can be "
        "asked for more than people reach among themselves."
    )
    return {"title": "People beside each other and other judges", "caption": caption, "columns": _BESIDE, "rows": rows}


def _between(one: str, other: str, asked: Mapping[str, Mapping[str, Verdict]]) -> list[Any]:
    """Return the row of two people: neither is the measure of the other, so there is no agreement with a majority."""
    both = [key for key in asked[one] if key in asked[other]]
    sides = [[_side(asked[who][key], asked[one][key]) for key in both] for who in (one, other)]
    same = agreement.pairwise(list(zip(*sides, strict=True))).get("1 and 2", math.nan)
    return [one, other, len(both), None, None, None, _known(same), _known(agreement.cohen_kappa(*sides))]


def _among_all(asked: Mapping[str, Mapping[str, Verdict]]) -> list[Any]:
    common = set.intersection(*(set(verdicts) for verdicts in asked.values()))
    ratings = [sides for key, (_, sides) in _said(asked).items() if key in common]
    return [f"all {len(asked)}", "each other", len(common), *[None] * 4, _known(agreement.fleiss_kappa(ratings))]


def _said(asked: Mapping[str, Mapping[str, Verdict]]) -> Said:
    keys = dict.fromkeys(key for verdicts in asked.values() for key in verdicts)
    given = {key: [verdicts[key] for verdicts in asked.values() if key in verdicts] for key in keys}
    return {key: (verdicts[0], tuple(_side(one, verdicts[0]) for one in verdicts)) for key, verdicts in given.items()}


def _with(who: str, name: str, said: Said, answer: Callable[[Verdict], float | None]) -> list[Any]:
    answers = [(verdict, sides, answer(verdict)) for verdict, sides in said.values()]
    answered = [(verdict, sides, chance) for verdict, sides, chance in answers if chance is not None]
    pairs = [Labelled(Pair(one.prompt, one.a, one.b), sides) for one, sides, _ in answered]
    found = with_people(pairs, [Answer(chance) for *_, chance in answered]) if pairs else {}
    names = ("agreement", "agreement_low", "agreement_high", "agreement_with_ties", "kappa")
    return [who, name, len(pairs), *(_known(found.get(one, math.nan)) for one in names)]


def _judges(folder: RunFolder) -> dict[str, Callable[[Verdict], float | None]]:
    """Return the gold, the AI judge and every judge whose verdicts a run has: how probably a is better."""
    frame = folder.frame()
    names = [name for name in frame["metric"].unique() if name in _SCORES or name.startswith("judge_")]
    known = frame[frame["metric"].isin(names) & frame["value"].notna()]
    columns = ["metric", "method", "seed", "prompt_id", "sample"]
    values = dict(zip(known[columns].itertuples(index=False, name=None), known["value"], strict=True))

    def asked(name: str) -> Callable[[Verdict], float | None]:
        def answer(one: Verdict) -> float | None:
            own = values.get((name, one.method, one.seed, one.prompt_id, one.sample))
            if name not in _SCORES:
                return own
            theirs = values.get((name, BASELINE, one.seed, one.prompt_id, one.sample))
            return None if own is None or theirs is None else 0.5 + ((own > theirs) - (own < theirs)) / 2

        return answer

    return {name.removeprefix("judge_"): asked(name) for name in names if name != _METRIC}


def _side(verdict: Verdict, like: Verdict) -> int:
    """Return 1, 2 or 0 for a tie, of the pair as another verdict has it: its a may be this one's b."""
    side = _SIDES[str(verdict.winner)]
    return side if verdict.a == like.a else (0, 2, 1)[side]


def _known(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None
