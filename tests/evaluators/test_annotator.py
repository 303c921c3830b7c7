import math
from dataclasses import dataclass, field
from itertools import combinations

import pytest
from datasets import Dataset

from alignarena.core import seeds
from alignarena.core.contract import Judge
from alignarena.core.digest import digest
from alignarena.core.errors import BadInput
from alignarena.evaluators.annotator import SimulatedAnnotator
from alignarena.evaluators.sentiment import Gold, Positivity


@dataclass(frozen=True)
class Stated:
    """Reads the score off the completion."""

    lineage: frozenset[str] = frozenset({"stated"})

    def score(self, rows, lab):
        return [float(row["completion"]) for row in rows]


@dataclass
class Draws:
    seed: int = 0
    named: list = field(default_factory=list)

    def random(self, *names):
        self.named.append(names)
        return seeds.generator(self.seed, *names)


def asked(*completions, prompt_id="p"):
    return {"prompt_id": prompt_id, "prompt": "?", "completions": [str(c) for c in completions]}


def prefer(rows, lab=None, scorer=None, **fields):
    return SimulatedAnnotator(scorer or Stated(), **fields).prefer(Dataset.from_list(rows), lab or Draws()).to_list()


def test_it_is_a_judge_with_the_lineage_of_its_scorer():
    annotator = SimulatedAnnotator(Gold())
    assert isinstance(annotator, Judge)
    assert annotator.lineage == Gold().lineage
    assert digest(annotator) != digest(SimulatedAnnotator(Gold(), noise=0.2))


def test_without_noise_it_ranks_exactly_and_ties_share_a_rank():
    first, second = prefer([asked(0.2, 0.9, 0.5, 0.1), asked(0.5, 0.7, 0.5, 0.0, prompt_id="q")], noise=0.0)
    assert first["ranks"] == [3, 1, 2, 4]
    assert second["ranks"] == [2, 1, 2, 4]
    assert first["completions"] == ["0.2", "0.9", "0.5", "0.1"]


def test_margins_by_hand_in_the_order_of_combinations():
    (row,) = prefer([asked(0.0, 0.05, 0.25, 0.75)], noise=0.0, grades=(0.1, 0.25, 0.5))
    # |0-.05| |0-.25| |0-.75| |.05-.25| |.05-.75| |.25-.75|; a difference that reaches a grade has it
    assert row["margins"] == pytest.approx([0, 2 / 3, 1, 1 / 3, 1, 1])


@pytest.mark.parametrize(("noise", "k"), [(0.1, 2), (0.3, 4)])
def test_noise_prefers_pairs_as_bradley_and_terry_say(noise, k):
    utilities = [0.5, 0.6, 0.35, 0.8][:k]
    draws = 4000
    ranked = prefer([asked(*utilities, prompt_id=i) for i in range(draws)], noise=noise)
    for i, j in combinations(range(k), 2):
        expected = 1 / (1 + math.exp(-(utilities[i] - utilities[j]) / noise))
        observed = sum(row["ranks"][i] < row["ranks"][j] for row in ranked) / draws
        assert abs(observed - expected) < 4 * math.sqrt(expected * (1 - expected) / draws)


def test_noisy_rankings_have_no_ties_and_margins_of_the_noisy_utilities():
    ranked = prefer([asked(0.5, 0.5, 0.5, prompt_id=i) for i in range(200)], noise=0.1)
    assert all(sorted(row["ranks"]) == [1, 2, 3] for row in ranked)
    assert {round(3 * margin) for row in ranked for margin in row["margins"]} == {0, 1, 2, 3}


def test_a_choice_depends_on_neither_order_nor_batch():
    rows = [asked(0.4, 0.5, 0.6, prompt_id=i) for i in range(50)]
    together = {row["prompt_id"]: row for row in prefer(rows)}
    assert {row["prompt_id"]: row for row in prefer(rows[::-1])} == together
    assert [prefer([row])[0] for row in rows] == [together[row["prompt_id"]] for row in rows]
    assert len({tuple(row["ranks"]) for row in together.values()}) > 2


def test_seeds_and_other_completions_of_a_prompt_redraw_the_noise():
    rows = [asked(0.5, 0.5, 0.5, 0.5, prompt_id=i) for i in range(20)]
    others = [asked("0.50", "0.50", "0.50", "0.50", prompt_id=i) for i in range(20)]
    lab = Draws()
    ranks = [[row["ranks"] for row in prefer(r, at)] for r, at in ((rows, lab), (rows, Draws(1)), (others, lab))]
    assert ranks[0] != ranks[1] and ranks[0] != ranks[2]
    assert all(names[:2] == ("annotator", "Stated") for names in lab.named)


def test_the_scorer_sees_topic_names_and_finish_reasons():
    text = "The library is wonderful."
    row = {**asked(text, text, "Wonderful!"), "topic_names": ["library"], "finish_reasons": ["length", "stop", "stop"]}
    (judged,) = prefer([row], scorer=Gold(), noise=0.0)
    assert judged["ranks"] == [2, 1, 2]
    assert prefer([asked("bad", "good")], scorer=Positivity(), noise=0.0)[0]["ranks"] == [2, 1]


def test_no_rows_are_no_rows():
    rows = Dataset.from_list([asked(1, 2)]).select([])
    assert len(SimulatedAnnotator(Stated()).prefer(rows, Draws())) == 0


@pytest.mark.parametrize(
    "fields", [{"noise": -0.1}, {"noise": float("nan")}, {"grades": (0.3, 0.2, 0.5)}, {"grades": (0.1, 0.2)}]
)
def test_wrong_fields_are_bad_input(fields):
    with pytest.raises(BadInput, match="annotator"):
        SimulatedAnnotator(Stated(), **fields)
