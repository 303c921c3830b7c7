"""The AI reviser: what it asks, what it takes, what it leaves, and what a cell pays."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import toy_task
from datasets import Dataset

from alignarena.core.contract import Principle, Rows, Sampling
from alignarena.evaluators.reviser import EXEMPLARS, SENTENCES, LanguageReviser
from alignarena.harness.lab import HarnessLab
from alignarena.paper_lab import PaperLab, PaperPolicy

KIND, TRUE = Principle("Is it curt?", "Make it kind."), Principle("Is it false?", "Make it true.")


@dataclass
class Answers(PaperLab):
    """A lab whose model answers as a list says: texts, each with whether it ends."""

    critiques: list[str] = field(default_factory=list)
    revisions: list[tuple[str, bool]] = field(default_factory=list)
    asked: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def sample(self, policy: Any, rows: Rows, n: int = 1, *, stream: str, sampling: Sampling = Sampling()) -> Rows:
        self.asked[stream] = rows.to_list()
        said = self.revisions if stream.endswith("revision") else [(text, False) for text in self.critiques]
        return Dataset.from_list(
            [{**row, "completion": text, "finish_reason": "stop" if ends else "length", "completion_ids": [7]}
             for row, (text, ends) in zip(rows.to_list(), said, strict=True)]
        )  # fmt: skip


def rows(*completions: str) -> Rows:
    return Dataset.from_list(
        [{"prompt_id": f"p{i}", "prompt": "Say {it}.", "completion": text, "completion_ids": [1], "logps": [0.0],
          "sample": 0, "finish_reason": "length", "kind": "red_team"} for i, text in enumerate(completions)]
    )  # fmt: skip


def revise(lab: Answers, completions: Rows, **fields: Any) -> list[dict[str, Any]]:
    reviser = LanguageReviser(PaperPolicy("base"), **fields)
    return reviser.revise(completions, (KIND,), lab, stream="one").to_list()  # type: ignore[no-any-return]


def test_a_critique_is_asked_for_first_then_a_revision_after_solved_examples() -> None:
    lab = Answers(critiques=["It is {curt}."], revisions=[("Dear {you}.", True)])
    (row,) = revise(lab, rows("No {sir}."), exemplars=SENTENCES[:1])
    first, second = (lab.asked[f"one {part}"][0]["prompt"] for part in ("critique", "revision"))
    assert [turn["role"] for turn in second] == ["user", "assistant"] * 3 + ["user"]
    assert second[:5] == first  # the same conversation goes on
    assert first[4]["content"] == "Request: Say {it}.\nResponse: No {sir}.\n\nCritique: Is it curt?"
    assert second[5] == {"role": "assistant", "content": "It is {curt}."}
    assert second[6]["content"] == "Revision: Make it kind. Give the new response alone."
    solved = SENTENCES[0]
    assert [turn["content"] for turn in first[1:4:2]] == [solved.critique, solved.revision]
    assert solved.principle.critique_request in first[0]["content"]
    told = {"completion": "Dear {you}.", "critique": "It is {curt}.", "principle": "Is it curt?"}
    kept = {"prompt_id": "p0", "prompt": "Say {it}.", "sample": 0, "kind": "red_team", "finish_reason": "stop"}
    assert row == {**kept, **told, "revised": True, "changed": True}  # no ids or log-probs of the old text


def test_what_is_empty_or_cut_is_not_taken_and_the_old_completion_stands() -> None:
    lab = Answers(critiques=["bad", " ", "bad", "bad"], revisions=[("", True), ("new and cut", False), ("b", True)])
    made = revise(lab, rows("a0", "a1", "a2", "b"))
    assert [row["prompt_id"] for row in lab.asked["one revision"]] == ["0", "2", "3"]  # no critique, no question
    assert [row["completion"] for row in made] == ["a0", "a1", "a2", "b"]
    assert [row["revised"] for row in made] == [False, False, False, True]
    assert [row["changed"] for row in made] == [False] * 4  # the last one said the same again
    assert [row["finish_reason"] for row in made] == ["length"] * 3 + ["stop"]


def test_without_any_critique_no_revision_is_asked_for() -> None:
    lab = Answers(critiques=["", ""])
    assert [row["revised"] for row in revise(lab, rows("a", "b"))] == [False, False]
    assert list(lab.asked) == ["one critique"]


def test_principles_are_drawn_for_each_row_and_step() -> None:
    reviser, many = LanguageReviser(PaperPolicy("base")), rows(*"abcdefghijkl")

    def drawn(stream: str) -> list[str]:
        lab = Answers(critiques=["bad"] * 12, revisions=[("c", True)] * 12)
        return reviser.revise(many, (KIND, TRUE), lab, stream=stream)["principle"][:]  # type: ignore[no-any-return]

    assert set(drawn("one")) == {"Is it curt?", "Is it false?"}
    assert drawn("one") == drawn("one") != drawn("two")


def test_built_in_examples_stand_apart_from_the_data() -> None:
    assert len(EXEMPLARS) == len(SENTENCES) == 2
    assert all(one.revision != one.completion for one in (*EXEMPLARS, *SENTENCES))


def test_a_cell_pays_for_what_is_sampled_once(new_lab: Callable[..., HarnessLab]) -> None:
    lab = new_lab()
    policy = toy_task.base(lab)
    drawn = lab.sample(policy, toy_task.prompts(), stream="to revise")
    wordy = replace(KIND, critique_request="w1 " * 40)  # longer than the comparison's prompts may be
    reviser = LanguageReviser(policy, exemplars=(), critique=Sampling(max_new_tokens=4))
    made = lab.revise(drawn, reviser, (wordy,), stream="one")
    assert set(made.column_names) >= {"critique", "principle", "revised", "changed"}
    ledger = lab.account.stages[-1]["ledger"]
    assert lab.account.stages[-1]["verb"] == "revise"
    asked = sum(bool(text.strip()) for text in made["critique"])
    assert ledger["completions"] == 8 + asked and ledger["labels"] == ledger["labeler_calls"] == 0
    again = lab.revise(drawn, reviser, (wordy,), stream="one")
    assert lab.account.stages[-1]["hit"] and again.to_list() == made.to_list()
    lab.revise(drawn, reviser, (replace(wordy, comparison="other"),), stream="one")
    assert not lab.account.stages[-1]["hit"]  # the principles themselves are in the key
