"""Self-BLEU, distinct n-grams and length correlation on texts written out."""

import math

import pytest

from alignarena.evaluators.diversity import bleu, correlation, distinct, self_bleu, words


def test_words_are_lower_case_and_marks_stand_alone() -> None:
    assert words("The cat's bowl, empty.") == ["the", "cat's", "bowl", ",", "empty", "."]


def test_bleu_of_equal_texts_is_1_and_of_different_ones_0() -> None:
    assert bleu(list("abcde"), [list("abcde")]) == pytest.approx(1.0)
    assert bleu(["a", "b"], [["c", "d"]]) == 0.0
    assert bleu([], [[]]) == 1.0 and bleu([], [["a"]]) == 0.0 == bleu(["a"], [])


def test_bleu_by_hand() -> None:
    # unigrams 3/4; bigrams (1 + 1)/(3 + 1); trigrams (0 + 1)/(2 + 1); of four (0 + 1)/(1 + 1); no penalty
    expected = (3 / 4 * 2 / 4 * 1 / 3 * 1 / 2) ** (1 / 4)
    assert bleu(["a", "b", "x", "d"], [["a", "b", "c", "d"]]) == pytest.approx(expected)


def test_a_short_text_pays_for_its_length_and_the_nearest_reference_counts() -> None:
    assert bleu(["a", "b"], [["a", "b", "c"]]) == pytest.approx(math.exp(1 - 3 / 2))
    assert bleu(["a", "b"], [["a", "b", "c"], ["b", "a"]]) == pytest.approx(1.0)  # bigrams (1 + 1)/(1 + 1)


def test_self_bleu_reads_the_other_answers_to_the_same_prompt() -> None:
    rows = [{"prompt_id": "p", "completion": "One two."}, {"prompt_id": "q", "completion": "One two."},
            {"prompt_id": "p", "completion": "One two."}]  # fmt: skip
    found = [(row["prompt_id"], values["self_bleu"]) for row, values in self_bleu(rows)]
    assert found == [("p", pytest.approx(1.0)), ("p", pytest.approx(1.0)), ("q", None)]


def test_distinct_counts_over_all_texts_together() -> None:
    assert distinct(["a b", "a b"], 1) == pytest.approx(2 / 4)
    assert distinct(["a b", "b c"], 2) == 1.0
    assert math.isnan(distinct(["", "a"], 2))


def test_the_correlation_with_length() -> None:
    assert correlation([1, 2, 3], [2.0, 4.0, 6.0]) == pytest.approx(1.0)
    assert math.isnan(correlation([2, 2], [1.0, 3.0])) and math.isnan(correlation([], []))
