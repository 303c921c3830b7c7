"""The answer's sentences where methods share too little, or SFT did not finish."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from alignarena.reports.answer import answers
from alignarena.results.frame import Results, load_results


def sentences(results: Results) -> str:
    [answer] = answers(results)
    return " ".join(sentence for _, sentence in answer.lines)


def test_a_pair_that_was_not_compared_is_not_told_apart(tmp_path: Path, run_folders: ModuleType) -> None:
    run_folders.quickstart(tmp_path / "a", methods=("sft", "dpo"))
    run_folders.quickstart(tmp_path / "b", methods=("sft", "ppo"), seeds=(1,))
    said = sentences(load_results(tmp_path / "a", tmp_path / "b"))
    assert "Not compared, as they share no seed and prompt: dpo and ppo." in said
    assert "told apart" not in said and "told from each other" not in said
    run_folders.quickstart(tmp_path / "c", methods=("sft", "best_of_n"), seeds=(1,))
    said = sentences(load_results(tmp_path / "a", tmp_path / "b", tmp_path / "c"))
    assert "Not compared, as they share no seed and prompt: dpo and ppo; dpo and best_of_n." in said
    assert "Every other pair among dpo, ppo and best_of_n can be told apart." in said


def test_of_many_methods_the_best_is_above_those_alone_that_it_was_compared_with(
    tmp_path: Path, run_folders: ModuleType
) -> None:
    run_folders.quickstart(tmp_path / "a", methods=("sft", "ppo", *(f"m{i}" for i in range(6))))
    run_folders.quickstart(tmp_path / "b", methods=("sft", "dpo"), seeds=(1,))
    said = sentences(load_results(tmp_path / "a", tmp_path / "b"))
    assert "ppo; it can be told from every other that it was compared with. Of 21 pairs" in said
    assert "Not compared, as they share no seed and prompt: ppo and dpo; m0 and dpo;" in said


def test_without_sft_nobody_has_a_verdict(tmp_path: Path, run_folders: ModuleType) -> None:
    folder = run_folders.quickstart(tmp_path / "r", methods=("sft", "ppo"), seeds=(0, 1))
    folder.fail_cell("sft", 1, "RunFailed: loss is NaN at step 3")
    said = sentences(load_results(folder.path))
    assert "No verdict: sft (FAILED: all others are compared with it)." in said
    assert "than SFT" not in said
