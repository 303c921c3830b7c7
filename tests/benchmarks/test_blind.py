"""Which pairs people judge: a fair sample, whenever they stop."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import run_folders

from alignarena.benchmarks.blind import draw
from alignarena.core.errors import BadInput
from alignarena.results.store import RunFolder

METHODS = ("sft", "dpo", "ppo", "best_of_n")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run_folders.quickstart(tmp_path_factory.mktemp("runs") / "run", methods=METHODS, seeds=(0, 1))


def test_whoever_stops_early_has_judged_as_many_of_each_method(run: RunFolder) -> None:
    drawn = [one for one in draw(run) if one.pair.a != one.pair.b]
    assert drawn == [one for one in draw(run) if one.pair.a != one.pair.b]  # the same for everyone
    assert len({one.key for one in drawn}) == len(drawn)
    counts = Counter(one.method for one in drawn[:60])
    assert set(counts) == set(METHODS[1:]) and max(counts.values()) - min(counts.values()) <= 6
    assert {one.seed for one in drawn[:60]} == {0, 1}
    assert len({one.prompt_id for one in drawn[:60]}) > 30  # not the first prompts first


def test_a_pair_is_of_one_prompt_and_sample_with_sft_as_b(run: RunFolder) -> None:
    theirs = {seed: {(row["prompt_id"], row["sample"]): row["completion"] for row in run.completions("sft", seed)}
              for seed in (0, 1)}  # fmt: skip
    for one in draw(run, ["dpo"]):
        assert one.method == "dpo" and one.pair.b == theirs[one.seed][one.prompt_id, one.sample]


def test_what_cannot_be_judged_is_said(run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no method 'best_on' to compare with sft; did you mean 'best_of_n'"):
        draw(run, ["best_on"])
    with pytest.raises(BadInput, match="no method 'sft'"):
        draw(run, ["sft"])
    trimmed = run_folders.quickstart(tmp_path / "run", methods=("sft", "dpo"))
    trimmed.write_cell("dpo", 0, completions=[])
    with pytest.raises(BadInput, match="no completions are stored"):
        draw(trimmed)


def test_not_even_the_key_tells_which_is_sfts(run: RunFolder) -> None:
    drawn = draw(run)
    assert [replace(one, pair=one.pair.swapped()).key for one in drawn] == [one.key for one in drawn]
