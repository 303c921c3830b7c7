"""The AI labeler on a language model: what it asks, how it reads the answer, and what a cell pays."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import log
from typing import Any

import numpy as np
import pytest
import toy_task
from datasets import Dataset

from alignarena.core.contract import Judge, Labeler, Rows, Sampling, Scorer
from alignarena.core.errors import BadInput
from alignarena.core.feedback import standardised
from alignarena.evaluators.labeler import LanguageLabeler, Question, comparison, grading
from alignarena.harness.lab import HarnessLab
from alignarena.paper_lab import PaperPolicy

PAIR = Question("Which one?", "{prompt}: {first} or {second}", "It is ", ("1", "2"))
GRADE = Question("How good?", "{prompt}: {completion}", "It is ", ("0", "1", "2"))


@dataclass
class Answers:
    """A lab whose model has fixed odds: for ``1`` as ``first`` says of a question, for grades as ``grade`` says."""

    first: Callable[[str], float] = lambda question: 0.5
    grade: Callable[[str], list[float]] = lambda question: [1 / 3] * 3
    asked: list[dict[str, Any]] = field(default_factory=list)

    def logps(self, policy: Any, rows: Rows) -> Rows:
        self.asked += rows.to_list()
        return rows.add_column("logps", [[-7.0, log(self._odds(row)), -99.0] for row in rows])  # ending, verdict, end

    def sample(self, policy: Any, rows: Rows, n: int = 1, *, stream: str, sampling: Sampling) -> Rows:
        assert (sampling.temperature, sampling.max_new_tokens) == (0.0, 30)
        return rows.add_column("completion", ["because" for _ in rows])

    def _odds(self, row: dict[str, Any]) -> float:
        question, verdict = str(row["prompt"]), row["completion"].removeprefix("It is ")
        if "Which one?" in question:
            return self.first(question) if verdict == "1" else 1 - self.first(question)
        return self.grade(question)[int(verdict)]


def labeler(**fields: Any) -> LanguageLabeler:
    return LanguageLabeler(PaperPolicy("base"), **{"pair": PAIR, "single": GRADE, **fields})


def pair(*completions: str, prompt: Any = "say") -> Rows:
    return Dataset.from_list([{"prompt_id": "p", "prompt": prompt, "completions": list(completions)}])


def test_it_is_a_judge_a_scorer_and_a_labeler() -> None:
    one = labeler()
    assert isinstance(one, Judge) and isinstance(one, Scorer) and isinstance(one, Labeler)
    assert (one.calls(1), one.calls(2)) == (1, 2)
    assert (labeler(rationale_tokens=9).calls(2), labeler(by_score=True).calls(2)) == (4, 2)


def test_t14_both_orders_are_asked_and_averaged() -> None:
    lab = Answers(first=lambda question: {"good or bad": 0.9, "bad or good": 0.6}[question.split(": ")[1]])
    (row,) = labeler().prefer(pair("good", "bad"), lab)  # type: ignore[arg-type]
    assert row["orders"] == pytest.approx([0.9, 0.6])
    assert row["probability"] == pytest.approx((0.9 + 1 - 0.6) / 2)
    (back,) = labeler().prefer(pair("bad", "good"), lab)  # type: ignore[arg-type]
    assert row["probability"] + back["probability"] == pytest.approx(1)
    assert (row["ranks"], back["ranks"]) == ([1, 2], [2, 1])
    asked = ["Which one?\n\nsay: good or bad", "Which one?\n\nsay: bad or good"]
    assert [one["prompt"] for one in lab.asked[:4:2]] == asked


def test_t14_one_that_always_prefers_the_first_place_says_nothing() -> None:
    (row,) = labeler().prefer(pair("good", "bad"), Answers(first=lambda question: 0.97))  # type: ignore[arg-type]
    assert row["probability"] == pytest.approx(0.5)


def test_t16_a_score_is_the_mean_grade() -> None:
    rows = Dataset.from_list([{"prompt_id": "p", "prompt": "say", "completion": text} for text in ("good", "dull")])
    grades = {"say: good": [0.1, 0.2, 0.7], "say: dull": [0.25] * 3}  # the rest is other words: renormalised away
    scores = labeler().score(rows, Answers(grade=lambda question: grades[question.split("\n\n")[1]]))  # type: ignore[arg-type]
    assert scores == pytest.approx([0.6, 0.0])


def test_grades_of_both_may_decide_a_comparison() -> None:
    grades = {"say: good": [0.2, 0.0, 0.8], "say: bad": [0.6, 0.0, 0.4]}
    lab = Answers(grade=lambda question: [odds + 1e-12 for odds in grades[question.split("\n\n")[1]]])
    (row,) = labeler(by_score=True).prefer(pair("good", "bad"), lab)  # type: ignore[arg-type]
    # log-odds of the better grade are log 4 and log 2/3: sigmoid(log 6) = 6/7
    assert row["probability"] == pytest.approx(6 / 7, abs=1e-6)
    assert "orders" not in row


def test_a_chain_of_thought_stands_before_the_verdict() -> None:
    lab = Answers()
    labeler(rationale_tokens=30).prefer(pair("good", "bad"), lab)  # type: ignore[arg-type]
    turns = lab.asked[0]["prompt"]
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]
    assert "explain" in turns[0]["content"] and turns[1]["content"] == "because"


def test_a_conversation_and_exemplars_are_put_in_words() -> None:
    said = [("user", "hi"), ("assistant", "yes?"), ("user", "bye")]
    turns = [{"role": role, "content": content} for role, content in said]
    lab = Answers()
    shown = replace(PAIR, exemplars=("say: a or b. It is 1",))
    labeler(pair=shown).prefer(pair("good", "bad", prompt=turns), lab)  # type: ignore[arg-type]
    assert lab.asked[0]["prompt"] == (
        "Which one?\n\nsay: a or b. It is 1\n\nuser: hi\nassistant: yes?\nuser: bye: good or bad"
    )


def test_the_goal_is_named_in_the_built_in_questions() -> None:
    assert "Be brief. Say" in comparison("Be brief.").text(prompt="", first="", second="")
    assert "Be brief. Grade" in grading("Be brief.").text(prompt="", completion="")
    asked = grading("").text(prompt="{odd", completion="{curly}")  # braces of a text are no fields
    assert "{odd" in asked and "{curly}" in asked
    assert "helpful" in comparison("").goal and len(grading("").verdicts) == 10


def test_a_row_may_name_the_principle_to_compare_by() -> None:
    asked = replace(PAIR, preamble="Which one? {goal}", goal="Be brief.")
    grade = replace(GRADE, preamble="How good? {goal}")
    rows = Dataset.from_list([{**pair("good", "bad")[0], "principle": one} for one in ("Be {kind}.", None)])
    for fields, count in (({"pair": asked}, 4), ({"single": grade, "by_score": True}, 6)):
        lab = Answers()
        labeler(**fields).prefer(rows, lab)  # type: ignore[arg-type]
        questions = [one["prompt"] for one in lab.asked]
        assert all("Be {kind}." in text for text in questions[:count])
        assert not any("Be {kind}." in text for text in questions[count:])


def test_rationales_are_kept_with_the_labels() -> None:
    (row,) = labeler(rationale_tokens=30).prefer(pair("good", "bad"), Answers())  # type: ignore[arg-type]
    assert row["rationales"] == ["because", "because"]


def test_three_completions_are_refused() -> None:
    with pytest.raises(BadInput, match="two completions at a time"):
        labeler().prefer(pair("a", "b", "c"), Answers())  # type: ignore[arg-type]


# -- through the harness ----------------------------------------------------------------------------------------------

WORDS = Question("w1 " * 40, "{prompt} {first} {second}", "w2", (" w3", " w4"))  # longer than the comparison's prompts
SINGLE = Question("", "{completion}", "w2", (" w3", " w4"))


def sampled(lab: HarnessLab, n: int) -> Rows:
    return lab.sample(toy_task.base(lab), toy_task.prompts(), n, stream="a")


def test_a_cell_pays_calls_and_no_labels(new_lab: Callable[..., HarnessLab]) -> None:
    from alignarena.methods.parts.rows import rankings

    lab = new_lab()
    asked = LanguageLabeler(toy_task.base(lab), WORDS, SINGLE)
    answers = lab.prefer(rankings(sampled(lab, 2)), asked)
    ledger = lab.account.stages[-1]["ledger"]
    assert (ledger["labeler_calls"], ledger["labels"]) == (16, 0)
    assert ledger["scored_tokens"] > 16 * 40 and ledger["sampled_tokens"] == 0
    assert set(map(tuple, answers["lineage"])) == {("labeler",)}
    lab.score(sampled(lab, 2), standardised(asked, [0.0, 1.0]))
    assert lab.account.stages[-1]["ledger"]["labeler_calls"] == 16
    assert lab.account.charged.labels == 0 and lab.account.charged.labeler_calls == 32


def test_a_thought_costs_what_it_samples(new_lab: Callable[..., HarnessLab]) -> None:
    from alignarena.methods.parts.rows import rankings

    lab = new_lab()
    asked = LanguageLabeler(toy_task.base(lab), WORDS, SINGLE, rationale_tokens=5)
    lab.prefer(rankings(sampled(lab, 2)), asked)
    ledger = lab.account.stages[-1]["ledger"]
    assert ledger["labeler_calls"] == 32 and 16 <= ledger["sampled_tokens"] <= 80


def test_it_reads_the_models_own_odds(new_lab: Callable[..., HarnessLab]) -> None:
    lab = new_lab()
    rows = sampled(lab, 1)
    scores = lab.score(rows, LanguageLabeler(toy_task.base(lab), WORDS, SINGLE))["score"]
    totals = []
    for verdict in ("w3", "w4"):
        texts = [{**row, "prompt": row["completion"], "completion": f"w2 {verdict}"}
                 for row in rows.select_columns(["prompt_id", "completion"])]  # fmt: skip
        logps = lab.logps(toy_task.base(lab), Dataset.from_list(texts))["logps"]
        totals.append([values[1] for values in logps])
    odds = np.array(totals[1]) - np.array(totals[0])
    assert scores == pytest.approx(2 / (1 + np.exp(-odds)) - 1, abs=1e-5)
    assert np.std(scores) > 1e-4


def test_prompts_of_the_comparison_keep_their_limit(new_lab: Callable[..., HarnessLab]) -> None:
    lab = new_lab()
    sampled(lab, 1)
    lab.score(sampled(lab, 1), LanguageLabeler(toy_task.base(lab), WORDS, replace(SINGLE, preamble="w1 " * 40)))
    long = Dataset.from_list([{"prompt_id": "long", "prompt": "w1 " * 40, "completion": "w2"}])
    with pytest.raises(BadInput, match=r"more than model.max_prompt_tokens = 32"):
        lab.logps(toy_task.base(lab), long)
    with pytest.raises(BadInput, match=r"more than model.max_prompt_tokens = 32"):
        lab.sample(toy_task.base(lab), long, stream="b")
