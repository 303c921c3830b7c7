import csv
import gzip
import json
import os
from pathlib import Path

import pytest

from alignarena.benchmarks import hh
from alignarena.benchmarks.datasets import DATASETS, DataConfig, dry_run_report, load_dataset_splits
from alignarena.benchmarks.pairs import Pair
from alignarena.benchmarks.splits import SHARES, TOO_LONG, Dropped, Splits, split_of, take
from alignarena.core.errors import BadInput, RunFailed
from alignarena.paper_lab import PaperPolicy

REAL = Path(os.environ.get("ALIGNARENA_DATA", Path(__file__).parents[2].parent / "shared" / "data")) / "hh-rlhf"


def dialogue(*turns):
    names = ("Human", "Assistant")
    return "".join(f"\n\n{names[i % 2]}: {turn}" for i, turn in enumerate(turns))


def write_jsonl(path, rows, prefix=""):
    text = prefix + "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return str(path)


def pairs(count, **more):
    return [{"prompt": f"Question {i}?", "chosen": f"Good {i}.", "rejected": f"Bad {i}.", **more} for i in range(count)]


def by_split(splits):
    return {
        "sft": splits.demonstrations,
        "reward_model": splits.preferences["overall"],
        "reward_model_judge": splits.judge_preferences["overall"],
        "train": splits.prompts,
        "validation": splits.validation,
        "evaluation": splits.evaluation,
        "heldout": [row for rows in splits.heldout.values() for row in rows],
    }


def load(path, **config) -> Splits:
    return load_dataset_splits(DataConfig("preferences", path=str(path), **config))


# --- HH: dialogues into pairs


def test_hh_prompt_is_everything_up_to_the_last_assistant_turn():
    pair = hh.parse_pair(
        {"chosen": dialogue("Hi", "Hello", "Why?", " So. "), "rejected": dialogue("Hi", "Hello", "Why?", "No.")}
    )
    assert pair.prompt == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Why?"},
    ]
    assert (pair.chosen, pair.rejected) == ("So.", "No.")


@pytest.mark.parametrize(
    ("chosen", "rejected", "reason"),
    [
        (dialogue("a", "b"), dialogue("a", "b"), "identical pair"),
        (dialogue("a", "b"), dialogue("a", " b "), "identical pair"),
        (dialogue("a", "b", "c", "d"), dialogue("a", "x", "c", "d"), "sides differ before the last turn"),
        (dialogue("a", "b", "c", "d"), dialogue("a", "b"), "sides differ before the last turn"),
        (dialogue("a", ""), dialogue("a", "b"), "empty completion"),
        (dialogue("a", "", "c", "d"), dialogue("a", "", "c", "e"), "malformed dialogue"),
        ("no turns", "none either", "malformed dialogue"),
        (dialogue("a", "b", "c"), dialogue("a", "b", "d"), "malformed dialogue"),
        ("x" + dialogue("a", "b"), "x" + dialogue("a", "c"), "malformed dialogue"),
        ("\n\nAssistant: a\n\nAssistant: b", "\n\nAssistant: a\n\nAssistant: c", "malformed dialogue"),
        (dialogue("a", "b"), None, "malformed dialogue"),
        (dialogue("a", "b\ud800"), dialogue("a", "c"), "not valid Unicode"),
    ],
)
def test_hh_drops_rows_with_a_reason(chosen, rejected, reason):
    with pytest.raises(Dropped, match=f"^{reason}$"):
        hh.parse_pair({"chosen": chosen, "rejected": rejected})


def hh_rows(axis, count=80):
    return [
        {
            "chosen": dialogue(f"{axis} question {i}", f"good {i}"),
            "rejected": dialogue(f"{axis} question {i}", f"bad {i}"),
        }
        for i in range(count)
    ]


@pytest.fixture
def hh_folder(tmp_path):
    twice = [{"chosen": dialogue("q", "a"), "rejected": dialogue("q", "a")}] * 2
    write_jsonl(tmp_path / "helpful-base.test.jsonl.gz", hh_rows("helpful") + twice)
    (tmp_path / "harmless-base").mkdir()
    write_jsonl(tmp_path / "harmless-base" / "test.jsonl", hh_rows("harmless"))
    return tmp_path


def test_hh_folder_gives_two_axes_and_counts_what_it_drops(hh_folder):
    splits = load_dataset_splits(DataConfig("hh-rlhf", path=str(hh_folder)))
    assert set(splits.preferences) == {"overall", "helpful", "harmless"}
    assert len(splits.preferences["overall"]) == len(splits.preferences["helpful"]) + len(
        splits.preferences["harmless"]
    )
    first, second = splits.report.sources
    assert (first.read, first.kept, first.dropped) == (82, 80, {"identical pair": 2})
    assert (second.read, second.kept, second.dropped) == (80, 80, {})
    assert sum(len(rows) for rows in by_split(splits).values()) == 160
    assert {row["kind"] for row in splits.preferences["harmless"]} == {"red_team"}
    assert {row["kind"] for row in splits.preferences["helpful"]} == {"ordinary"}
    assert all(row["prompt_id"].startswith(f"hh-{row['axis']}/") for row in splits.prompts)
    assert all(row["completion"].startswith("good") for row in splits.demonstrations)


def test_hh_is_found_through_the_environment_and_by_axis(hh_folder, monkeypatch):
    (hh_folder / "data").mkdir()
    (hh_folder / "data" / "hh-rlhf").symlink_to(hh_folder)
    monkeypatch.setenv("ALIGNARENA_DATA", str(hh_folder / "data"))
    splits = load_dataset_splits(DataConfig("hh-rlhf", axes=("harmless",)))
    assert {row["axis"] for row in splits.evaluation} == {"harmless"}


def test_hh_without_folder_or_network_says_what_to_set(monkeypatch):
    import datasets

    def offline(*args, **kwargs):
        assert (args, kwargs) == (("Anthropic/hh-rlhf",), {"data_dir": "helpful-base", "split": "test"})
        raise ConnectionError("Couldn't reach the Hub")

    monkeypatch.delenv("ALIGNARENA_DATA", raising=False)
    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(RunFailed, match=r"data\.path.*helpful-base\.test\.jsonl\.gz.*ALIGNARENA_DATA"):
        load_dataset_splits(DataConfig("hh-rlhf"))


def test_hh_rows_from_the_hub_are_read_alike(hh_folder, monkeypatch):
    import datasets

    def hub(name, data_dir, split):
        return datasets.Dataset.from_list(hh_rows(data_dir.removesuffix("-base")))

    local = load_dataset_splits(DataConfig("hh-rlhf", path=str(hh_folder)))
    monkeypatch.delenv("ALIGNARENA_DATA", raising=False)
    monkeypatch.setattr(datasets, "load_dataset", hub)
    assert by_split(load_dataset_splits(DataConfig("hh-rlhf"))) == by_split(local)


def test_hh_folder_without_the_file_names_the_candidates(tmp_path):
    with pytest.raises(BadInput, match=r"helpful-base\.test\.jsonl\.gz.*helpful-base/test\.jsonl"):
        load_dataset_splits(DataConfig("hh-rlhf", path=str(tmp_path)))
    with pytest.raises(BadInput, match="not a folder"):
        load_dataset_splits(DataConfig("hh-rlhf", path=str(tmp_path / "nothing")))


# --- splits


def test_splits_are_disjoint_by_prompt_and_cover_every_kept_row(tmp_path):
    again = [{"prompt": f"Question {i}?", "chosen": f"Better {i}.", "rejected": f"Bad {i}."} for i in range(0, 400, 7)]
    splits = load(write_jsonl(tmp_path / "p.jsonl", pairs(400) + again))
    where = {}
    for name, rows in by_split(splits).items():
        for row in rows:
            assert where.setdefault(row["prompt_id"], name) == name
    assert len(where) == 400
    for name, report in splits.report.splits.items():
        assert report.prompts / 400 == pytest.approx(SHARES[name], abs=0.06)
    names = [row["pair_id"] for rows in (splits.preferences["overall"], *splits.heldout.values()) for row in rows]
    assert len(set(names)) == len(names)


def test_a_conversation_cut_at_several_turns_stays_in_one_split(tmp_path):
    rows = []
    for i in range(150):
        opening = {"role": "user", "content": f"Question  {i}?"}
        later = [{**opening, "content": f"question {i}?"}, {"role": "assistant", "content": "Ok."}, opening]
        rows += [{"prompt": prompt, "chosen": "Yes.", "rejected": "No."} for prompt in ([opening], later)]
    splits = load(write_jsonl(tmp_path / "p.jsonl", rows))
    where = {}
    for name, split_rows in by_split(splits).items():
        for row in split_rows:
            assert where.setdefault(row["cluster"], name) == name
    assert len(where) == 150


def test_a_split_does_not_move_when_rows_or_sizes_change(tmp_path):
    rows = pairs(300)
    whole = by_split(load(write_jsonl(tmp_path / "all.jsonl", rows)))
    fewer = by_split(load(write_jsonl(tmp_path / "some.jsonl", rows[::-1][:200]), sizes={"train": 5}))
    assert len(fewer["train"]) == 5
    for name in whole:
        assert {row["prompt_id"] for row in fewer[name]} <= {row["prompt_id"] for row in whole[name]}
    assert split_of("question 1?") == split_of("question 1?")
    assert {split_of(str(i)) for i in range(500)} == set(SHARES)


def test_a_size_is_spread_over_clusters_and_axes():
    rows = [
        {"prompt_id": f"{topic}/{i}", "cluster": topic, "axis": "ab"[i % 2]} for topic in "uvwxyz" for i in range(4)
    ]
    assert {row["cluster"] for row in take(rows, 6)} == set("uvwxyz")
    alone = [{"prompt_id": str(i), "cluster": str(i), "axis": "ab"[i > 20]} for i in range(60)]
    assert [row["axis"] for row in take(alone, 10)].count("a") == 5
    assert len(take(rows, None)) == len(take(rows, 99)) == 24
    assert take(rows, 0) == []


def test_too_long_drops_only_what_the_split_reads(tmp_path):
    path = write_jsonl(tmp_path / "p.jsonl", pairs(200))
    asked = []

    def too_long(prompt, completion):
        asked.append(completion)
        return completion.startswith("Bad")

    splits = load_dataset_splits(DataConfig("preferences", path=path, sizes={"reward_model": 0}), too_long=too_long)
    whole = load(path)
    assert splits.evaluation == whole.evaluation
    assert splits.demonstrations == whole.demonstrations
    assert splits.heldout == {} and splits.judge_preferences == {"overall": []}
    dropped = sum(len(by_split(whole)[name]) for name in ("reward_model", "reward_model_judge", "heldout"))
    assert splits.report.sources[0].dropped == {TOO_LONG: dropped}
    assert "" in asked  # the prompt alone


def test_a_needed_split_left_empty_is_an_error(tmp_path):
    path = write_jsonl(tmp_path / "p.jsonl", pairs(100))
    with pytest.raises(BadInput, match=f"no prompt is left for the split 'sft' of 100 rows read .*100 {TOO_LONG}"):
        load_dataset_splits(DataConfig("preferences", path=path), too_long=lambda prompt, completion: True)


# --- a user's own file


def test_csv_jsonl_and_gzip_give_the_same_rows_with_or_without_bom(tmp_path):
    rows = pairs(120, margin=1.5)
    rows[3]["chosen"] = 'Two\nlines, "quoted"'
    expected = by_split(load(write_jsonl(tmp_path / "a.jsonl", rows)))
    assert expected["reward_model"][0]["margin"] == 1.5
    for encoding in ("utf-8", "utf-8-sig"):
        with open(tmp_path / "a.csv", "w", encoding=encoding, newline="") as stream:
            writer = csv.DictWriter(stream, ["prompt", "chosen", "rejected", "margin"])
            writer.writeheader()
            writer.writerows(rows)
        assert by_split(load(tmp_path / "a.csv")) == expected
    assert by_split(load(write_jsonl(tmp_path / "a.jsonl.gz", rows))) == expected
    assert by_split(load(write_jsonl(tmp_path / "b.jsonl", rows, prefix="\ufeff\n"))) == expected
    (tmp_path / "c.jsonl").write_text("\r\n\r\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    assert by_split(load(tmp_path / "c.jsonl")) == expected


def test_rows_that_cannot_be_used_are_counted_by_reason(tmp_path):
    bad = [
        {"prompt": "", "chosen": "a", "rejected": "b"},
        {"prompt": "p", "chosen": " ", "rejected": "b"},
        {"prompt": "p", "chosen": "a"},
        {"prompt": "p", "chosen": "a", "rejected": True},
        {"prompt": "p", "chosen": "a", "rejected": "a"},
        {"prompt": 3, "chosen": "a", "rejected": "b"},
        {"prompt": [{"role": "assistant", "content": "x"}], "chosen": "a", "rejected": "b"},
        {"prompt": "Question 0?", "chosen": "Good 0.", "rejected": "Bad 0."},
    ]
    report = load(write_jsonl(tmp_path / "p.jsonl", pairs(100) + bad)).report
    assert report.sources[0].dropped == {
        "empty prompt": 1,
        "empty completion": 2,
        "completion is not text": 1,
        "identical pair": 1,
        "prompt is neither text nor messages": 1,
        "prompt does not end with a user turn": 1,
        "repeated pair": 1,
    }
    assert report.sources[0].read == 108
    text = dry_run_report(report)
    assert "108 rows read, 100 kept" in text and "dropped 2: empty completion" in text
    assert (
        f"evaluation: {report.splits['evaluation'].prompts} of {report.splits['evaluation'].available} prompts" in text
    )


def test_margins_must_be_numbers_where_the_file_has_them(tmp_path):
    rows = pairs(100, margin="0.5")
    rows[0]["margin"], rows[1]["margin"] = "much", float("nan")
    del rows[2]["margin"]
    splits = load(write_jsonl(tmp_path / "p.jsonl", rows))
    assert splits.report.sources[0].dropped == {"margin is not a number": 3}
    assert all(row["margin"] == 0.5 for row in splits.preferences["overall"])
    assert all("margin" not in row for row in splits.prompts + splits.demonstrations)


def test_a_file_with_some_conversations_gets_one_type_of_prompt(tmp_path):
    rows = pairs(100)
    rows[0] = {
        "prompt": [{"role": "user", "content": "Q", "name": "x"}],
        "chosen": [{"role": "assistant", "content": "A"}],
        "rejected": "B",
    }
    splits = load(write_jsonl(tmp_path / "p.jsonl", rows))
    found = [row for part in by_split(splits).values() for row in part]
    assert all(isinstance(row["prompt"], list) and set(row["prompt"][0]) == {"role", "content"} for row in found)
    assert Pair("Q", "a", "b").content == Pair([{"role": "user", "content": "Q"}], "a", "b").content


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", "", "a.jsonl has no rows; it needs the columns prompt, chosen, rejected"),
        ("a.csv", "prompt,chosen,rejected\n", "a.csv has no rows"),
        (
            "a.jsonl",
            '{"prompt": "p", "answer": "a"}',
            "no column 'chosen', 'rejected'; found: prompt, answer; needed: ",
        ),
        ("a.csv", "prompt;chosen;rejected\na;b;c\n", "found: prompt;chosen;rejected; needed"),
        ("a.jsonl", '{"prompt": "p"}\n{"prompt": \n', "a.jsonl:2: not JSON"),
        ("a.json", '[{"prompt": "p"}]', "a.json:1: one JSON object a line is needed, got list"),
        ("a.txt", "x", "cannot read .txt"),
        ("a.jsonl", b"\xff\xfe{", "not UTF-8"),
        ("a.jsonl.gz", "not gzip", "cannot be read"),
        ("a.csv", "prompt,chosen,rejected\n" + "p,a,b,c\n" * 100, "100 more fields than columns"),
    ],
)
def test_a_wrong_file_is_one_clear_error(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BadInput) as error:
        load(path)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_missing_path_file_dataset_and_axis(tmp_path):
    for config, message in (
        (DataConfig("preferences"), "data.path"),
        (DataConfig("preferences", path=str(tmp_path / "no.jsonl")), "does not exist"),
        (DataConfig("preferences", path=str(tmp_path)), "cannot read a file without a suffix"),
        (DataConfig("hh_rlhf"), "did you mean 'hh-rlhf'"),
        (DataConfig("hh-rlhf", axes=("helpfull",)), "did you mean 'helpful'"),
        (DataConfig("quickstart", axes=("helpful",)), "leave data.axes out"),
    ):
        with pytest.raises(BadInput, match=message):
            load_dataset_splits(config)
    with pytest.raises(BadInput, match=r"data\.sizes\.eval.*did you mean 'evaluation'"):
        DataConfig("quickstart", sizes={"eval": 3})


# --- built in, and the real thing


def test_quickstart_splits_are_disjoint_by_topic_and_cut_by_size():
    splits = load_dataset_splits(DataConfig("quickstart", sizes={"train": 12, "sft": 9}))
    parts = (splits.demonstrations, splits.feedback_prompts, splits.prompts, splits.validation, splits.evaluation)
    clusters = [{row["cluster"] for row in rows} for rows in parts]
    assert sum(map(len, clusters)) == len(set.union(*clusters))
    assert (len(splits.prompts), len(clusters[2])) == (12, 12)
    assert len(splits.demonstrations) == 9 and all(row["completion"] for row in splits.demonstrations)
    assert len(clusters[4]) >= 100
    assert all(row["axis"] == "overall" and row["kind"] == "ordinary" for rows in parts for row in rows)
    assert splits.preferences == {} and splits.heldout == {}


def test_every_dataset_has_a_summary():
    assert set(DATASETS) == {"quickstart", "red_team", "exact", "hh-rlhf", "preferences"}
    assert all(entry.summary for entry in DATASETS.values())


def test_every_dataset_has_a_reviser_and_principles_that_it_understands():
    base = PaperPolicy("base")
    for name, entry in DATASETS.items():
        config = DataConfig(name)
        assert len(entry.principles(config)) >= (3 if name == "exact" else 12)
        assert hasattr(entry.reviser(config, base), "revise")


@pytest.mark.skipif(not REAL.is_dir(), reason=f"HH-RLHF is not at {REAL}")
@pytest.mark.parametrize(("axis", "longer_wins", "read"), [("helpful", 0.596, 2354), ("harmless", 0.442, 2312)])
def test_real_hh_longer_wins_as_often_as_measured(axis, longer_wins, read):
    config = DataConfig("hh-rlhf", path=str(REAL), axes=(axis,), sizes={"train": 256})
    splits = load_dataset_splits(config)
    report = splits.report.sources[0]
    assert report.read == read and report.kept + sum(report.dropped.values()) == read
    assert report.kept > read - 30 and "sides differ before the last turn" in report.dropped
    assert len(splits.prompts) == 256
    raw = hh.read_rows(REAL / f"{axis}-base.test.jsonl.gz", hh.COLUMNS)
    kept = []
    for row in raw:
        try:
            kept.append(hh.parse_pair(row))
        except Dropped:
            continue
    wins = [(len(pair.chosen) > len(pair.rejected)) + 0.5 * (len(pair.chosen) == len(pair.rejected)) for pair in kept]
    assert sum(wins) / len(wins) == pytest.approx(longer_wins, abs=0.005)
