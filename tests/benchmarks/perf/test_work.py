import gzip
import json

import pytest
import tiny_model

from alignarena.benchmarks.perf.work import DIALOGUES, Comparison, Work, dialogues, our_rows, pairs, quickstart
from alignarena.harness.tokens import Tokens

PROMPT = "\n\nHuman: w1 w2\n\nAssistant:"


@pytest.fixture
def tokens(tiny_model_dir):
    return Tokens(tiny_model.tokenizer(), tiny_model.config(tiny_model_dir))


def stored(folder, *rows):
    (folder / "hh-rlhf").mkdir()
    with gzip.open(folder / "hh-rlhf" / DIALOGUES, "wt") as file:
        file.writelines(json.dumps({"chosen": PROMPT + a, "rejected": PROMPT + b}) + "\n" for a, b in rows)


def test_real_dialogues_are_cut_by_length_and_by_what_is_no_preference(tokens, tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNARENA_DATA", str(tmp_path))
    stored(tmp_path, (" w3 w4", " w5"), (" w3", " w3 "), (" w3" * 40, " w5"), (" w6", " w7"))
    found = dialogues(tokens, 5, max_length=20)
    assert "helpful-base dialogues" in found.label
    first = found.comparisons[0]
    assert [len(ids) for ids in first.completions] == [3, 2]  # w3 w4 EOS; w5 EOS
    assert first.prompt == tokens.prompt_ids("w1 w2")
    assert len(found.comparisons) == 2


def test_invented_dialogues_follow_the_stored_lengths(tokens, monkeypatch):
    monkeypatch.delenv("ALIGNARENA_DATA", raising=False)
    found = dialogues(tokens, 300)
    assert "lengths" in found.label
    assert found == dialogues(tokens, 300)
    assert max(one.longest for one in found.comparisons) <= 512
    prompts = sorted(len(one.prompt) for one in found.comparisons)
    assert prompts[150] == pytest.approx(105, rel=0.25)  # the median of helpful-base
    assert all(ids[-1] == tokens.eos_id for one in found.comparisons for ids in one.completions)


def test_quickstart_work_has_k_completions_a_prompt(tokens):
    found = quickstart(tokens, 3, k=4)
    assert [len(one.completions) for one in found.comparisons] == [4, 4, 4]


def test_useful_tokens_count_the_data_once():
    one = Comparison((1, 2, 3), ((4, 5), (6,), (7, 8)))
    assert one.tokens == 3 + 2 + 1 + 2
    assert one.longest == 5
    assert one.cut(1).tokens == 5
    spread = pairs([one])
    assert [pair.completions for pair in spread] == [((4, 5), (6,)), ((4, 5), (7, 8)), ((6,), (7, 8))]


def test_work_begins_again_and_knows_its_shortest():
    long, short = Comparison((1, 2, 3), ((4,),)), Comparison((1,), ((4,),))
    work = Work((long, short), "two")
    assert work.take(3) == (long, short, long)
    assert work.shortest == (short, long)


def test_rows_carry_ids_for_every_loss(tokens):
    (row,) = our_rows([Comparison((7, 8), ((9, 1), (10, 11, 1)))], tokens).to_list()
    assert row["prompt_ids"] == [7, 8]
    assert (row["completion_ids"], row["chosen_ids"], row["rejected_ids"]) == ([9, 1], [9, 1], [10, 11, 1])
    assert (row["completions_ids"], row["ranks"]) == ([[9, 1], [10, 11, 1]], [1, 2])
