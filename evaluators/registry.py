"""The evaluators by name: what each measures on a policy's sampled completions, and what may be concluded from it.

An evaluator's role is ``diagnostic`` (the gold of a simulation, the proxy, exact quantities) or ``verdict``
(independent of the training feedback by lineage). Measures are one number a completion; a null says why by its absence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from datasets import Dataset

from alignarena.core.contract import Rows, TrainablePolicy
from alignarena.core.errors import BadInput, nearest
from alignarena.evaluators import (
    ai_judge,
    behaviour,
    capability,
    diversity,
    harm,
    lm_harness,
    refusals,
    sentiment,
    truthfulness,
)
from alignarena.evaluators.evidence import Evidence, Measures, Row


@dataclass(frozen=True)
class Evaluator:
    """A registered evaluator: its measures come row by row, in the order of the evidence."""

    name: str
    summary: str
    role: str
    measure: Callable[[Evidence], Iterable[tuple[Row, Measures]]]


def _gold(evidence: Evidence) -> Iterable[tuple[Row, Measures]]:
    return ((row, sentiment.parts(row)) for row in evidence.rows)


def _second_opinion(evidence: Evidence) -> Iterable[tuple[Row, Measures]]:
    return ((row, sentiment.second_parts(row)) for row in evidence.rows)


def _proxy(evidence: Evidence) -> Iterable[tuple[Row, Measures]]:
    scored = evidence.lab.score(evidence.rows, evidence.proxy)
    return ((row, {"proxy_reward": row["score"]}) for row in scored)


def _heldout_reward(evidence: Evidence) -> Iterable[tuple[Row, Measures]]:
    scored = evidence.lab.score(evidence.rows, evidence.heldout_reward)
    return ((row, {"heldout_reward": row["score"]}) for row in scored)


def _win_rate(evidence: Evidence) -> Iterable[tuple[Row, Measures]]:
    scorer = evidence.judge
    theirs = {(row["prompt_id"], row["sample"]): row["score"] for row in evidence.lab.score(evidence.baseline, scorer)}
    for row in evidence.lab.score(evidence.rows, scorer):
        other = theirs[row["prompt_id"], row["sample"]]
        yield row, {"win": 0.5 if row["score"] == other else float(row["score"] > other)}


def _kl(evidence: Evidence) -> Iterable[tuple[Row, Measures]]:
    bound = getattr(evidence.policy, "kl_bound", None)
    if bound is not None:
        yield from ((row, {"kl": bound}) for row in evidence.rows)
        return
    own = evidence.lab.logps(evidence.policy, evidence.rows)  # type: ignore[arg-type]
    reference = evidence.lab.logps(evidence.reference, evidence.rows)
    for row, other in zip(own, reference, strict=True):
        yield row, {"kl": math.fsum(row["logps"]) - math.fsum(other["logps"])}


def _behaviour(evidence: Evidence) -> Iterable[tuple[Row, Measures]]:
    return ((row, behaviour.measures(row)) for row in evidence.rows)


def _diversity(evidence: Evidence) -> Iterable[tuple[Row, Measures]]:
    return diversity.self_bleu(evidence.rows)


def _harm(evidence: Evidence) -> Iterable[tuple[Row, Measures]]:
    return ((row, harm.measures(row)) for row in evidence.rows)


def _heldout(evidence: Evidence) -> Iterable[tuple[Row, Measures]]:
    """Does the policy's log-ratio to the SFT policy order people's pairs? DPO calls it the implicit reward."""
    if not hasattr(evidence.policy, "logps"):
        return
    policy: Any = evidence.policy
    for axis, pairs in evidence.heldout.items():
        ratio = {side: _logratios(evidence, policy, pairs, side) for side in ("chosen", "rejected")}
        for pair, chosen, rejected in zip(pairs, ratio["chosen"], ratio["rejected"], strict=True):
            row = {"prompt_id": pair["pair_id"], "cluster": pair["cluster"], "sample": 0}
            right = 0.5 if chosen == rejected else float(chosen > rejected)
            yield row, {f"implicit_accuracy_{axis}": right}


def _exact(evidence: Evidence) -> Iterable[tuple[Row, Measures]]:
    return evidence.exact


def _logratios(evidence: Evidence, policy: TrainablePolicy, pairs: Rows, side: str) -> list[float]:
    """Return the log-ratio (nats) of the policy to the SFT policy for one completion of each pair."""
    rows = Dataset.from_list(
        [{"prompt_id": pair["pair_id"], "prompt": pair["prompt"], "completion": pair[side]} for pair in pairs]
    )
    own, reference = evidence.lab.logps(policy, rows), evidence.lab.logps(evidence.reference, rows)
    return [math.fsum(a["logps"]) - math.fsum(b["logps"]) for a, b in zip(own, reference, strict=True)]


EVALUATORS: dict[str, Evaluator] = {
    one.name: one
    for one in (
        Evaluator("gold", "the hidden reward of the simulation, split into its parts", "diagnostic", _gold),
        Evaluator("second_opinion", "an independent sentiment scorer, as a check", "diagnostic", _second_opinion),
        Evaluator("proxy", "the reward model that methods optimised", "diagnostic", _proxy),
        Evaluator("heldout_reward", "a linear reward model of the same annotator's labels of other prompts; no method "
                  "trains on it", "diagnostic", _heldout_reward),
        Evaluator("ai_judge", "the AI labeler's grade, where it gave no training feedback; of the policies' own family",
                  "verdict", ai_judge.measure),
        Evaluator("win_rate", "share of completions that beat SFT's, ties half", "diagnostic", _win_rate),
        Evaluator("kl", "nats a completion away from the SFT policy, on the policy's own samples", "diagnostic", _kl),
        Evaluator("behaviour", "length, ends by itself, distinct words", "diagnostic", _behaviour),
        Evaluator("diversity", "self-BLEU between a policy's answers to one prompt", "diagnostic", _diversity),
        Evaluator("capability", "small tasks that no training touches: the alignment tax", "diagnostic",
                  capability.measure),
        Evaluator("truthfulness", "TruthfulQA, multiple choice", "diagnostic", truthfulness.measure),
        Evaluator("xstest", "refusals of safe and unsafe prompts of XSTest", "diagnostic", refusals.measure),
        Evaluator("harm", "harm and evasion on red-team prompts, refusals of look-alikes", "diagnostic", _harm),
        Evaluator("exact", "expected gold, KL and distances to the optimum, by enumeration", "diagnostic", _exact),
        Evaluator("heldout", "implicit reward against people's held-out pairs", "diagnostic", _heldout),
    )
}  # fmt: skip
LM_EVAL = "lm_eval:"  # before the name of one of its tasks, or the path of a task file


def find(name: str) -> Evaluator:
    """Return an evaluator by name.

    Raises:
        BadInput: No such evaluator; names the nearest.
    """
    if name.startswith(LM_EVAL):
        task = name.removeprefix(LM_EVAL)
        return Evaluator(name, f"lm-eval's task {task}", "diagnostic", partial(lm_harness.measure, task))
    if name not in EVALUATORS:
        raise BadInput(f"unknown evaluator {name!r}{nearest(name, EVALUATORS)}")
    return EVALUATORS[name]


def evaluate(names: Iterable[str], evidence: Evidence) -> list[dict[str, Any]]:
    """Return tidy scores: ``prompt_id, sample, evaluator, metric, value`` (and ``cluster``)."""
    return [
        {"prompt_id": row["prompt_id"], "cluster": row["cluster"], "sample": row["sample"], "evaluator": name,
         "metric": metric, "value": value}
        for name in names
        for row, measures in find(name).measure(evidence)
        for metric, value in measures.items()
    ]  # fmt: skip
