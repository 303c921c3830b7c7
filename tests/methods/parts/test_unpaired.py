"""Completions one by one, each beside completions of other prompts."""

import pytest
from datasets import Dataset

from alignarena.core.contract import PreferenceStream
from alignarena.core.errors import BadInput
from alignarena.methods.parts.experience import pairs_of
from alignarena.methods.parts.rows import pairs
from alignarena.methods.parts.unpaired import Unpaired, mismatched, unpaired
from alignarena.paper_lab import PaperLab, paper_task

PAIRS = Dataset.from_list(
    [
        {"prompt_id": f"p{i}", "prompt": f"prompt {i}", "chosen": f"good {i}", "rejected": f"bad {i}",
         "chosen_ids": [i, 1], "rejected_ids": [i, 0]}
        for i in range(5)
    ]
)  # fmt: skip


def test_a_pair_is_a_desirable_and_an_undesirable_completion() -> None:
    rows = unpaired(PAIRS)
    assert rows["completion"][:4] == ["good 0", "bad 0", "good 1", "bad 1"]
    assert rows["completion_ids"][:2] == [[0, 1], [0, 0]]
    assert rows["desirable"][:2] == [1.0, 0.0]
    assert set(rows.column_names) == {"prompt_id", "prompt", "completion", "completion_ids", "desirable"}


def test_a_soft_label_and_spans_are_kept() -> None:
    pair = {"prompt_id": "p", "prompt": "a", "chosen": "b", "rejected": "c", "probability": 0.75}
    spans = {"chosen_span": [0, 1], "rejected_span": [1, 2]}
    rows = unpaired(Dataset.from_list([{**pair, **spans}]))
    assert rows["desirable"][:] == [0.75, 0.25]
    assert rows["completion_span"][:] == [[0, 1], [1, 2]]
    assert "completion_ids" not in rows.column_names


def test_mismatched_completions_are_of_other_prompts() -> None:
    rows = mismatched(unpaired(PAIRS), 3, PaperLab())
    for row in rows:
        own = row["prompt_id"][1:]
        assert len(row["mismatched"]) == 3 and not any(text.endswith(own) for text in row["mismatched"])
        assert [f"{['bad', 'good'][kind]} {i}" for i, kind in row["mismatched_ids"]] == row["mismatched"]
    assert rows["completion"][:] == unpaired(PAIRS)["completion"][:]  # in their order


def test_rows_of_a_prompt_share_one_draw_which_depends_on_nothing_but_its_text() -> None:
    rows = mismatched(unpaired(PAIRS), 2, PaperLab())
    drawn = rows["mismatched"][:]
    assert drawn[0] == drawn[1] and len({tuple(texts) for texts in drawn[::2]}) > 1
    assert mismatched(unpaired(PAIRS), 2, PaperLab())["mismatched"][:] == drawn
    assert mismatched(unpaired(PAIRS), 2, PaperLab(seed=1))["mismatched"][:] != drawn


def test_equal_prompts_under_two_names_are_one_prompt() -> None:
    same = [{**row, "prompt": "the same"} for row in PAIRS.select([0, 1])]
    rows = mismatched(unpaired(Dataset.from_list([*same, PAIRS[2]])), 9, PaperLab())
    assert sorted(rows[0]["mismatched"]) == ["bad 2", "good 2"]
    assert rows[0]["mismatched"] == rows[2]["mismatched"]  # one draw, in one order
    assert len(rows[4]["mismatched"]) == 4  # as many as there are


def test_a_single_prompt_has_no_other() -> None:
    with pytest.raises(BadInput, match="all preferences have one prompt"):
        mismatched(unpaired(PAIRS.select([0])), 2, PaperLab())


def test_prompts_of_messages_differ_by_their_content() -> None:
    rows = [{**row, "prompt": [{"role": "user", "content": row["prompt"]}]} for row in PAIRS]
    drawn = mismatched(unpaired(Dataset.from_list(rows)), 4, PaperLab())
    assert not any(text.endswith("0") for text in drawn[0]["mismatched"])


def test_an_experience_out_of_another() -> None:
    preferences = paper_task().preferences["overall"]
    assert not isinstance(preferences, PreferenceStream)
    experience = Unpaired(pairs_of(preferences), 2)
    assert (experience.phases, experience.value_start) == (1, None)
    rows = experience.rows(0, None, PaperLab())  # type: ignore[arg-type]
    assert len(rows) == 2 * len(pairs(preferences))
