import json
import re
from collections import Counter
from itertools import permutations

import pytest

from alignarena.benchmarks.quickstart import DATA, quickstart_demonstrations, quickstart_rows
from alignarena.core.errors import BadInput
from alignarena.evaluators.sentiment import Positivity, names_topic, parts

TOPICS = {"sft": 60, "reward_model": 60, "train": 60, "validation": 30, "eval": 110, "sealed": 40}


@pytest.fixture(scope="module")
def topics():
    return [json.loads(line) for line in (DATA / "topics.jsonl").read_text(encoding="utf-8").splitlines()]


def compounds(texts):
    return Positivity().score([{"completion": text} for text in texts], None)


def test_counts(topics):
    assert Counter(topic["split"] for topic in topics) == TOPICS
    assert len({topic["topic"] for topic in topics}) == sum(TOPICS.values()) == 360
    rows = {split: quickstart_rows(split) for split in TOPICS}
    assert {split: len(found) for split, found in rows.items()} == {
        "sft": 240,
        "reward_model": 180,
        "train": 180,
        "validation": 60,
        "eval": 110,
        "sealed": 80,
    }
    assert {split: len({row["cluster"] for row in found}) for split, found in rows.items()} == TOPICS


def test_topics_and_names_carry_no_sentiment(topics):
    texts = [text for topic in topics for text in (topic["topic"], *topic["names"])]
    assert [text for text, compound in zip(texts, compounds(texts), strict=True) if compound != 0.0] == []


def test_frames_carry_no_sentiment_but_the_word_sentence():
    prompts = [row["prompt"] for split in TOPICS for row in quickstart_rows(split)]
    assert max(map(abs, compounds(prompts))) < 0.08
    assert set(compounds([prompt.replace("sentence", "line") for prompt in prompts])) == {0.0}


def test_no_topic_is_named_by_a_topic_of_another_split(topics):
    texts = [" | ".join([topic["topic"], *topic["names"]]) for topic in topics]
    overlaps = [
        (one["topic"], texts[j])
        for (_, one), (j, other) in permutations(enumerate(topics), 2)
        if one["split"] != other["split"] and names_topic({"topic_names": one["names"], "completion": texts[j]})
    ]
    assert overlaps == []


def test_every_prompt_names_its_topic_and_every_id_is_its_own():
    rows = [row for split in TOPICS for row in quickstart_rows(split)]
    assert all(names_topic({**row, "completion": row["prompt"]}) for row in rows)
    assert len({row["prompt_id"] for row in rows}) == len({row["prompt"] for row in rows}) == len(rows) == 850
    assert all(re.fullmatch(rf"[a-z_]+/{row['cluster']}/\d", row["prompt_id"]) for row in rows)


def test_a_prompt_row_by_hand():
    rows = {row["prompt_id"]: row for row in quickstart_rows("sft")}
    assert rows["sft/city-library/0"] == {
        "prompt_id": "sft/city-library/0",
        "prompt": rows["sft/city-library/0"]["prompt"],
        "cluster": "city-library",
        "topic_names": ["library", "libraries"],
        "kind": "ordinary",
        "axis": "overall",
    }
    assert "the city library" in rows["sft/city-library/0"]["prompt"]
    assert len({row["prompt"] for row in rows.values() if row["cluster"] == "city-library"}) == 4


def test_an_unknown_split_names_the_nearest():
    with pytest.raises(BadInput, match="'validation'"):
        quickstart_rows("validate")


def test_demonstrations_answer_the_sft_prompts_on_topic_and_end():
    demonstrations, rows = quickstart_demonstrations(), quickstart_rows("sft")
    shared = ("prompt_id", "prompt", "cluster")
    assert [[d[key] for key in shared] for d in demonstrations] == [[r[key] for key in shared] for r in rows]
    for demonstration, row in zip(demonstrations, rows, strict=True):
        judged = parts({**row, "completion": demonstration["completion"]})
        assert judged["on_topic"] == 1.0, demonstration
        assert demonstration["completion"].endswith(".")


def test_demonstrations_are_short_varied_and_neutral_on_average():
    texts = [demonstration["completion"] for demonstration in quickstart_demonstrations()]
    assert len(set(texts)) == 240
    assert all(6 <= len(text.split()) <= 15 for text in texts)
    values = compounds(texts)
    assert abs(sum(values) / len(values)) < 0.05
    assert sum(value == 0.0 for value in values) > len(values) / 2
    assert min(sum(value > 0 for value in values), sum(value < 0 for value in values)) > 30
