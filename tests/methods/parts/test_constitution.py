"""Parts of Constitutional AI: kinds of prompts, revisions, mixed preferences, the clamp."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
from datasets import Dataset

from alignarena.core.contract import Rows, Schedule, Task
from alignarena.core.errors import BadInput, RunFailed
from alignarena.evaluators.verdicts import preference
from alignarena.methods.parts.constitution import (
    by_kind,
    clamped,
    drawn_prompts,
    imitated,
    preference_model,
    revisions,
    under_principles,
)
from alignarena.paper_lab import PaperLab, PaperReviser, PaperScorer, paper_task

KINDS = ("red_team", "ordinary", "red_team", "look_alike", "ordinary", "ordinary", "ordinary", "red_team")


def task(*kinds: str, **fields: Any) -> Task:
    given = paper_task()
    rows = [{**row, "kind": kind} for row, kind in zip(given.prompts, kinds or KINDS, strict=True)]
    return replace(given, prompts=Dataset.from_list(rows), **fields)


def test_kinds_are_told_apart_and_without_red_team_prompts_all_are_about_harm() -> None:
    harm, others = by_kind(task().prompts)
    assert (harm["prompt_id"], others["prompt_id"]) == (["p0", "p2", "p7"], ["p1", "p3", "p4", "p5", "p6"])
    everything, nothing = by_kind(paper_task().prompts)
    assert len(everything) == 8 and len(nothing) == 0
    only, none = by_kind(task(*["red_team"] * 8).prompts)
    assert len(only) == 8 and len(none) == 0


def test_prompts_are_drawn_without_replacement() -> None:
    prompts = paper_task().prompts
    some = drawn_prompts(prompts, 3, PaperLab())["prompt_id"][:]
    assert len(set(some)) == 3 and some == drawn_prompts(prompts, 3, PaperLab())["prompt_id"][:]
    assert drawn_prompts(prompts, 8, PaperLab()) is drawn_prompts(prompts, None, PaperLab()) is prompts


@dataclass(frozen=True)
class Sometimes:
    """Adds a word to some completions, differently in every step; the others it fails to revise."""

    def revise(self, rows: Rows, principles: Any, lab: Any, *, stream: str) -> Rows:
        def one(row: dict[str, Any]) -> dict[str, Any]:
            done = (int(row["prompt_id"][1:]) + int(stream.split()[-1])) % 2 == 0
            text = f"{row['completion']}+{stream[-1]}" if done else row["completion"]
            return {"prompt_id": row["prompt_id"], "prompt": row["prompt"], "completion": text,
                    "revised": done, "changed": done}  # fmt: skip

        return Dataset.from_list([one(row) for row in rows])


def test_every_step_revises_what_the_last_one_left_and_first_answers_are_not_kept() -> None:
    given, lab = task(reviser=Sometimes()), PaperLab()
    made = revisions(given, given.prompts, lab, 3).to_list()
    ends = {i: [row["completion"].partition("+")[2] for row in made if row["prompt_id"] == f"p{i}"] for i in (0, 1)}
    assert ends == {0: ["2"], 1: ["1", "1+3"]}  # what was not revised in a step is no row of it
    assert len(made) == 4 + 4 + 4
    assert [line for line in lab.log if line.startswith(("sample", "revise"))] == [
        "sample x1 to revise", "revise revision 1", "revise revision 2", "revise revision 3"
    ]  # fmt: skip
    assert lab.log.count("note step revision/made revision/changed") == 3


@dataclass(frozen=True)
class Never:
    def revise(self, rows: Rows, principles: Any, lab: Any, *, stream: str) -> Rows:
        return Dataset.from_list([{**row, "revised": False, "changed": False} for row in rows])


def test_a_reviser_that_fails_always_or_is_missing_says_so() -> None:
    given = task(reviser=Never())
    with pytest.raises(RunFailed, match="rewrote none of 8 completions"):
        revisions(given, given.prompts, PaperLab(), 2)
    for missing in (replace(given, reviser=None), replace(given, principles=())):
        with pytest.raises(BadInput, match="no reviser or no principles"):
            revisions(missing, given.prompts, PaperLab(), 1)


def test_revisions_are_mixed_with_answers_to_the_other_prompts() -> None:
    given = task()
    rows = imitated(given, by_kind(given.prompts), PaperLab(), 2, 3).to_list()
    revised = [row for row in rows if row["completion"].endswith("kindly")]
    assert len(revised) == 3 * 2 and all(row["completion_ids"] is None for row in revised)
    helpful = [row for row in rows if not row["completion"].endswith("kindly")]
    assert {row["prompt_id"] for row in helpful} == {"p1", "p3", "p4", "p5", "p6"}
    assert 10 < len(helpful) <= 15  # those that were cut are left out
    assert len(imitated(given, by_kind(given.prompts), PaperLab(), 2, 0)) == 6


# -- comparisons ------------------------------------------------------------------------------------------------------


def answers(*probabilities: float, thought: bool) -> Rows:
    rows = [{"prompt_id": str(i), "completions": ["a", "b"], **preference(p)} for i, p in enumerate(probabilities)]
    return Dataset.from_list([{**row, "rationales": ["so", "so"]} if thought else row for row in rows])


def test_t15_the_clamp_keeps_the_order_and_the_bounds() -> None:
    given = (0.0, 0.01, 0.42, 0.5, 0.55, 0.97, 1.0)
    rows = clamped(answers(*given, thought=True), 0.6)
    assert rows["probability"][:] == pytest.approx([0.4, 0.4, 0.42, 0.5, 0.55, 0.6, 0.6])
    assert rows["probability"][:] == sorted(rows["probability"])
    assert rows["ranks"][:] == answers(*given, thought=True)["ranks"][:]
    assert max(margin for (margin,) in rows["margins"]) == pytest.approx(0.2)


def test_t15_labels_without_a_chain_of_thought_are_not_clamped() -> None:
    plain = answers(0.01, 0.97, thought=False)
    assert clamped(plain, 0.6) is plain


def test_each_comparison_has_a_principle_of_its_own() -> None:
    given = paper_task()
    rows = under_principles(given.prompts, given, PaperLab())["principle"][:]
    assert set(rows) == {"Is it curt?", "Is it false?"}
    assert rows == under_principles(given.prompts, given, PaperLab())["principle"][:]


@dataclass
class Learns(PaperLab):
    """Keeps what reward models are fitted to."""

    learnt: Any = None

    def fit_reward_model(self, start: Any, preferences: Any, loss: Any, schedule: Any) -> Any:
        self.learnt = preferences.to_list()
        return super().fit_reward_model(start, preferences, loss, schedule)


def test_people_teach_helpfulness_and_the_labeler_the_rest() -> None:
    given, lab = task(), Learns()
    preference_model(given, by_kind(given.prompts), lab, 0.6, Schedule())
    by_ai = [row for row in lab.learnt if row["probability"] != 1.0]
    assert {row["prompt_id"] for row in by_ai} == {"p0", "p2", "p7"}
    assert len(lab.learnt) - len(by_ai) == 8 * 6  # all strict pairs of four, of the axis helpful
    texts = {text for row in given.preferences["helpful"] for text in row["completions"]}  # type: ignore[union-attr]
    assert all(row["chosen"] in texts for row in lab.learnt if row["probability"] == 1.0)


@pytest.mark.parametrize("alone", ["no such axis", "prompts of one kind"])
def test_elsewhere_the_labeler_teaches_alone(alone: str) -> None:
    given, lab = task(*([] if alone == "no such axis" else ["ordinary"] * 8)), Learns()
    if alone == "no such axis":
        given = replace(given, preferences={"overall": given.preferences["overall"]})
    preference_model(given, by_kind(given.prompts), lab, 0.6, Schedule())
    assert all(row["probability"] != 1.0 for row in lab.learnt) and lab.learnt


def test_a_labeler_known_without_end_needs_no_comparison() -> None:
    given, oracle = task(), PaperScorer("truth")
    known = replace(given, labeler=replace(given.labeler, oracle=oracle))  # type: ignore[type-var]
    lab = PaperLab()
    assert preference_model(known, by_kind(known.prompts), lab, 0.6, Schedule()) is oracle and lab.log == []


def test_the_reviser_on_paper_says_what_a_reviser_says() -> None:
    given, lab = paper_task(), PaperLab()
    rows = lab.revise(lab.sample(given.policy, given.prompts, stream="a"), PaperReviser(), given.principles, stream="b")
    assert {"critique", "principle", "revised", "changed"} <= set(rows.column_names)
    assert "completion_ids" not in rows.column_names
