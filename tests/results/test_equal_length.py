"""The win rate at equal length of a run: the arrays that reach the fit are those of its scores and completions."""

import math

import numpy as np
import pytest

from alignarena.results import equal_length
from alignarena.results.frame import load_results
from alignarena.results.length_control import Games, length_controlled_interval
from alignarena.results.store import RunFolder


def test_equal_length_takes_prompts_enough_and_then_moves_the_rate(
    finished_run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = load_results(finished_run.path)
    assert math.isnan(equal_length.length_controlled(results, "dpo").mean)  # 80 prompts
    monkeypatch.setattr(equal_length, "FEWEST_PROMPTS_LENGTH_CONTROLLED", 80)
    found, raw = equal_length.length_controlled(results, "dpo"), results.interval("dpo", "win").mean
    assert found.low < found.mean < found.high and 0 < abs(found.mean - raw) < 0.1
    own, baseline = (
        {(row["prompt_id"], row["sample"]): len(row["completion"]) for row in finished_run.completions(method, 0)}
        for method in ("dpo", "sft")
    )
    wins = results.frame.query("method == 'dpo' and metric == 'win'")
    keys = list(zip(wins["prompt_id"], wins["sample"], strict=True))
    lengths = [np.array([of[key] for key in keys]) for of in (own, baseline)]
    by_hand = length_controlled_interval([Games(wins["value"].to_numpy(), *lengths, wins["cluster"].to_numpy())])
    assert found.mean == pytest.approx(by_hand.mean, abs=1e-9)
    assert math.isnan(equal_length.length_controlled(results, "dpo", "judge_nobody").mean)
