from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from alignarena.reports import frontier
from alignarena.results.frame import load_results
from alignarena.results.store import RunFolder


def test_the_frontier_runs_from_sft_over_trained_policies_alone(finished_run: RunFolder) -> None:
    results = load_results(finished_run.path)
    [found] = frontier.frontiers(results)
    assert found.labels == ["sft", "dpo", "ppo", "rejection_sampling"]  # neither base nor a bound
    assert found.envelope.kl[0] == 0
    assert found.envelope.reward[0] == pytest.approx(results.interval("sft", "gold").mean)
    assert found.envelope.reward[-1] == pytest.approx(results.interval("ppo", "gold").mean)


def test_rewards_are_read_between_points_in_sqrt_kl_and_nowhere_beyond(finished_run: RunFolder) -> None:
    [found] = frontier.frontiers(load_results(finished_run.path))
    table = frontier.table([found])
    [row] = table.shown
    kl, reward = found.envelope.kl, found.envelope.reward
    assert row[2].sort == pytest.approx(float(np.interp(np.sqrt(2), np.sqrt(kl), reward)))  # at 2 nats
    assert row[2].limits is not None and row[2].limits[0] < float(row[2].sort) < row[2].limits[1]
    assert row[3].reason == "no policy went as far"  # 5 nats; ppo stopped at 3


def test_one_trained_method_is_no_frontier(tmp_path: Path, run_folders: ModuleType) -> None:
    folder = run_folders.quickstart(tmp_path / "run", methods=("sft", "dpo"))
    assert frontier.frontiers(load_results(folder.path)) == []
