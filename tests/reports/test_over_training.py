from __future__ import annotations

import math
from pathlib import Path
from types import ModuleType

import pytest

from alignarena.reports import over_training
from alignarena.results.frame import Results, load_results

ALPHA, BETA = 1.0, 0.5  # the peak lies at exp(ALPHA / BETA - 1) = e, hence at e^2 nats


def gained(kl: float) -> float:
    root = math.sqrt(kl)
    return root * (ALPHA - BETA * math.log(root)) if root else 0.0


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, run_folders: ModuleType) -> Results:
    folder = run_folders.quickstart(tmp_path_factory.mktemp("course") / "run", methods=("sft", "ppo", "dpo"))
    rows = [
        {"fit": 1, "loss_name": "PPOLoss", "phase": phase, "step": 2 * phase + step, "loss": 0.1,
         "objective/kl": 0.5 * phase, "objective/scores": 0.2 + gained(0.5 * phase)}
        for phase in range(12) for step in range(2)  # a phase repeats what its samples scored
    ]  # fmt: skip
    folder.write_cell("ppo", 0, metrics=[{"fit": 0, "loss_name": "RewardLoss", "step": 0, "loss": 1.0}, *rows])
    folder.write_cell("sft", 0, metrics=[])
    folder.write_cell("dpo", 0, metrics=[{"fit": 0, "loss_name": "DPOLoss", "step": 0, "loss": 1.0}])
    return load_results(folder.path)


def test_a_course_has_a_point_each_time_that_samples_were_scored(results: Results) -> None:
    [found] = over_training.courses(results)
    assert found.label == "ppo"
    assert found.kl == [0.5 * phase for phase in range(12)]
    assert found.proxy[2] == pytest.approx(0.2 + gained(1.0))


def test_the_peak_of_the_form_of_gao_is_found(results: Results) -> None:
    courses = over_training.courses(results)
    [row] = over_training.table(results, courses).shown
    assert row[4].sort == pytest.approx(math.e**2, rel=1e-6)
    assert row[5].text == "1.00"
    assert row[3].sort == pytest.approx(results.compare("ppo", "sft", "gold").difference)


def test_a_distance_that_is_no_completions_is_left_out(tmp_path: Path, run_folders: ModuleType) -> None:
    """TRL logs means over tokens: on this axis they would be nearer to SFT by a completion's length."""
    folder = run_folders.quickstart(tmp_path / "run", methods=("sft", "ppo"))
    logged = {"fit": 0, "loss_name": "RLOOTrainer", "phase": 0}
    rows = [{**logged, "step": i, "kl": i / 9, "reward": i / 9} for i in range(9)]
    folder.write_cell("ppo", 0, metrics=rows)
    folder.write_cell("sft", 0, metrics=[])
    assert over_training.courses(load_results(folder.path)) == []


def test_without_rewards_and_distances_there_is_no_course(tmp_path: Path, run_folders: ModuleType) -> None:
    results = load_results(run_folders.quickstart(tmp_path / "run", methods=("base", "best_of_n")).path)
    assert over_training.courses(results) == []
    assert over_training.plot(results) is None
