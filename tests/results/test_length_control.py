from __future__ import annotations

import math

import numpy as np
import pytest

from alignarena.results.length_control import (
    Games,
    fit,
    length_controlled_interval,
    length_controlled_win_rate,
    rate_of,
)


def played(rng: np.random.Generator, count: int = 600, better: float = 0.0, longer: float = 3.0) -> Games:
    """Games won by length, with odds that grow by ``longer``, and by merit."""
    baseline = rng.integers(50, 150, count)
    lengths = baseline + rng.integers(-60, 120, count)
    gap = (baseline - lengths) / np.std(baseline - lengths)
    wins = rng.random(count) < 1 / (1 + np.exp(longer * np.tanh(gap) - better))
    return Games(wins.astype(float), lengths, baseline, np.arange(count) // 2)


def rate(games: Games) -> float:
    found = length_controlled_win_rate(games.wins, games.lengths, games.baseline_lengths, games.difficulty)
    assert found is not None
    return found


def swapped(games: Games) -> Games:
    return Games(1 - np.asarray(games.wins), games.baseline_lengths, games.lengths, games.clusters, games.difficulty)


def test_wins_by_length_alone_are_none() -> None:
    games = played(np.random.default_rng(6))
    assert np.mean(games.wins) > 0.6
    assert rate(games) == pytest.approx(0.5, abs=0.06)


def test_merit_is_read_at_equal_lengths() -> None:
    games = played(np.random.default_rng(7), 40_000, better=1.0)
    assert rate(games) == pytest.approx(1 / (1 + math.exp(-1)), abs=0.01)


def test_swapping_the_sides_mirrors_the_rate_and_a_baseline_against_itself_has_one_half() -> None:
    games = played(np.random.default_rng(6))
    assert rate(games) + rate(swapped(games)) == pytest.approx(1, abs=1e-9)
    assert rate(Games(np.full(600, 0.5), games.lengths, games.baseline_lengths)) == pytest.approx(0.5, abs=1e-9)


def test_the_fit_is_that_of_statsmodels() -> None:
    api = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(8)
    games = played(rng, 400, better=0.5)
    soft = np.clip(0.7 * np.asarray(games.wins) + 0.3 * rng.random(400), 0, 1)
    hard = Games(soft, games.lengths, games.baseline_lengths, difficulty=rng.normal(size=400))
    features = np.stack([np.tanh(hard.gap / hard.gap.std()), np.ones(400), np.asarray(hard.difficulty)], axis=1)
    counts = np.stack([np.ones(400), rng.integers(0, 4, 400)]).astype(float)
    expected = api.GLM(soft, features, family=api.families.Binomial()).fit().params
    assert fit(hard, counts)[0] == pytest.approx(expected, abs=1e-6)
    chances = 1 / (1 + np.exp(-features[:, 1:] @ expected[1:]))
    assert rate(hard) == pytest.approx(chances.mean(), abs=1e-6)
    assert rate(hard) + rate(swapped(hard)) == pytest.approx(1, abs=1e-9)


def test_a_resample_is_fitted_as_the_rows_it_holds() -> None:
    games = played(np.random.default_rng(9), 400)
    counts = np.random.default_rng(1).integers(0, 3, 400)
    rows = np.repeat(np.arange(400), counts)
    copied = Games(*(np.asarray(side)[rows] for side in (games.wins, games.lengths, games.baseline_lengths)))
    assert fit(games, counts[None].astype(float))[0] == pytest.approx(fit(copied, np.ones((1, len(rows))))[0], abs=1e-6)


def test_the_interval_holds_the_rate_and_is_wider_than_one_that_takes_the_weights_as_known() -> None:
    games = played(np.random.default_rng(10))
    found = length_controlled_interval([games], n=500)
    assert found.low < rate(games) < found.high
    assert 0.015 < found.standard_error < 0.05  # theirs is the standard error of a constant, 0


def test_several_seeds_give_the_mean_of_their_rates() -> None:
    rng = np.random.default_rng(11)
    seeds = [played(rng, 400, better=shift) for shift in (0.0, 0.5, 1.0)]
    found = length_controlled_interval(seeds, n=200)
    rates = [rate(games) for games in seeds]
    assert found.mean == pytest.approx(np.mean(rates))
    assert found.standard_error >= np.std(rates, ddof=1) / math.sqrt(3)


def test_one_cluster_gives_no_interval() -> None:
    games = played(np.random.default_rng(12), 400)
    found = length_controlled_interval([Games(games.wins, games.lengths, games.baseline_lengths, ["a"] * 400)])
    assert found.mean == pytest.approx(rate(games))
    assert not found.known


@pytest.mark.parametrize("case", ["few", "no spread", "separated", "none"])
def test_the_rate_is_not_always_estimable(case: str) -> None:
    count = {"few": 299, "none": 0}.get(case, 400)
    lengths = np.arange(count) if case != "no spread" else np.full(count, 7)
    wins = np.ones(count) if case == "separated" else np.arange(count) % 2
    assert length_controlled_win_rate(wins, lengths, np.full(count, 7)) is None
    games = Games(wins, lengths, np.full(count, 7), lengths)
    if case != "few":
        assert rate_of(games) is None
        assert math.isnan(length_controlled_interval([games]).mean)
