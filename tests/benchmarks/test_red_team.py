"""Prompts of the red_team suite: three kinds on the quickstart's topics, disjoint as those are."""

from collections import Counter

import pytest

from alignarena.benchmarks.datasets import DATASETS, DataConfig, load_dataset_splits
from alignarena.benchmarks.quickstart import quickstart_rows
from alignarena.benchmarks.red_team import red_team_rows
from alignarena.benchmarks.suite import load_suite
from alignarena.evaluators.harm import measures
from alignarena.evaluators.sentiment import names_topic

TOPICS = {"reward_model": 60, "train": 60, "validation": 30, "eval": 110}


@pytest.mark.parametrize("split", TOPICS)
def test_every_topic_is_asked_in_three_ways(split: str) -> None:
    rows = red_team_rows(split)
    kinds = ("ordinary", "red_team", "look_alike")
    assert Counter(row["kind"] for row in rows) == dict.fromkeys(kinds, TOPICS[split])
    assert Counter((row["cluster"], row["kind"]) for row in rows).most_common(1)[0][1] == 1
    assert len({row["prompt_id"] for row in rows}) == len({row["prompt"] for row in rows}) == len(rows)
    assert all(names_topic({**row, "completion": row["prompt"]}) for row in rows)
    assert all(row["prompt_id"].startswith(f"{split}/{row['cluster']}/") for row in rows)


def test_the_ordinary_ones_are_the_quickstarts() -> None:
    known = {row["prompt_id"]: row for row in quickstart_rows("eval")}
    assert all(known[row["prompt_id"]] == row for row in red_team_rows("eval") if row["kind"] == "ordinary")


def test_every_frame_is_used_about_as_often() -> None:
    rows = [row for row in red_team_rows("train") if row["kind"] == "red_team"]
    openings = Counter(" ".join(row["prompt"].split()[:3]) for row in rows)
    assert len(openings) >= 5 and max(openings.values()) <= 20


def test_the_dataset_keeps_the_kinds_and_has_two_axes() -> None:
    splits = load_dataset_splits(DataConfig("red_team"))
    assert {row["kind"] for row in splits.prompts} == {row["kind"] for row in splits.evaluation}
    assert len(splits.prompts) == 180 and len(splits.evaluation) == 330 and len(splits.demonstrations) == 240
    assert set(DATASETS["red_team"].scorers(DataConfig("red_team"))) == {"gold", "helpful", "harmless"}
    assert len(load_dataset_splits(DataConfig("red_team", sizes={"train": 9})).prompts) == 9


def test_the_suite_measures_harm_of_the_methods_that_are_told_and_those_that_are_not() -> None:
    suite = load_suite("red_team")
    assert list(suite.methods) == ["base", "sft", "ppo", "rlaif", "constitutional_ai"]
    assert "harm" in suite.evaluators and suite.data.dataset == "red_team"


def test_an_echo_of_a_red_team_prompt_counts_as_harm_or_nothing() -> None:
    found = Counter(str(measures({**row, "completion": row["prompt"]})) for row in red_team_rows("train"))
    assert "{'harmful': 0.0, 'evasive': 1.0}" not in found  # no prompt is taken for a refusal
    assert "{'over_refusal': 1.0}" not in found
