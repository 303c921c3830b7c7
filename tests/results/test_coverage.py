"""Do 95 % intervals hold the truth 95 times in 100, at the suites' own sizes? Simulated, since then the truth is known.

110 topics of two completions, one seed or several. The same topics are asked of every seed; what a method makes of a
topic is the same in all seeds, and what a seed's SFT policy and reward model make of its methods is the same for all
methods. With one seed the truth is that of this checkpoint, with several that of the method, over seeds and topics.
Run with ``-s`` to see the shares that docs/evaluation.md quotes.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from scipy.stats import norm

from alignarena.results import stats
from alignarena.results.length_control import Games, length_controlled_interval
from alignarena.results.ratings import ELO_SCALE, rate

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

TRIALS = 1000
TOPICS, EACH = 110, 2
CLUSTERS = np.repeat(np.arange(TOPICS), EACH)
SEEDS = pytest.mark.parametrize("seeds", [1, 3, 5, 10])
NOISE, TOPIC, SEED, SFT, REWARD_MODEL = 0.25, 0.10, 0.03, 0.03, 0.02  # standard deviations, of gold reward


def check(name: str, seeds: int, covered: list[bool]) -> None:
    share = float(np.mean(covered))
    print(f"{name}, {seeds} seeds: {share:.3f}")
    assert 0.93 <= share <= 0.97


def scores(rng: np.random.Generator, methods: int, seeds: int, equal: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Scores (methods, seeds, rows) of mean 0 and their truth (methods, seeds); the last method is SFT."""
    of_seed = rng.normal(0, SEED, (methods, seeds, 1))
    of_seed[:-1] += rng.normal(0, REWARD_MODEL, (1, seeds, 1))
    if equal and seeds == 1:
        of_seed[:] = 0  # checkpoints that are equally good
    shared = rng.normal(0, SFT, (1, seeds, 1)) + rng.normal(0, 0.2, (1, 1, TOPICS))[..., CLUSTERS]
    of_topic = rng.normal(0, TOPIC, (methods, 1, TOPICS))[..., CLUSTERS]
    noise = rng.normal(0, NOISE, (methods, seeds, len(CLUSTERS)))
    return shared + of_seed + of_topic + noise, of_seed[..., 0]


def seeds_of(values: np.ndarray) -> list[stats.Sample]:
    return [(one, CLUSTERS) for one in values]


@SEEDS
def test_paired_differences(seeds: int) -> None:
    rng, covered, by_seeds_alone = np.random.default_rng(seeds), [], []
    for _ in range(TRIALS):
        (a, b), of_seed = scores(rng, 2, seeds)
        truth = float(of_seed[0, 0] - of_seed[1, 0]) if seeds == 1 else 0.0
        found = stats.paired_difference(seeds_of(a - b))
        covered.append(found.low <= truth <= found.high)
        if seeds > 1:
            alone = stats.t_interval((a - b).mean(axis=1))
            by_seeds_alone.append(alone.low <= truth <= alone.high)
    if seeds > 1:  # why the topics that seeds share are in the interval
        print(f"seeds' means alone, {seeds} seeds: {np.mean(by_seeds_alone):.3f}")
    check("paired difference", seeds, covered)


@SEEDS
def test_win_rates_with_ties(seeds: int) -> None:
    rng, covered, better, even = np.random.default_rng(10 + seeds), [], 0.1, 0.05
    for _ in range(TRIALS):
        (a, b), of_seed = scores(rng, 2, seeds)
        gap = better + a - b
        wins = np.where(np.abs(gap) < even, 0.5, (gap > 0).astype(float))
        centre, spread = better, math.sqrt(2 * (NOISE**2 + TOPIC**2 + SEED**2) + REWARD_MODEL**2)
        if seeds == 1:
            centre, spread = better + float(of_seed[0, 0] - of_seed[1, 0]), math.sqrt(2 * (NOISE**2 + TOPIC**2))
        truth = (norm.sf(even, centre, spread) + norm.sf(-even, centre, spread)) / 2
        found = stats.mean_interval(seeds_of(wins))
        covered.append(found.low <= truth <= found.high)
    check("win rate", seeds, covered)


def wins_of(
    rng: np.random.Generator, chances: np.ndarray, topics: np.ndarray, shared: tuple[np.ndarray, bool]
) -> np.ndarray:
    """Wins of one seed that go together within topics and, with several seeds, within the seed; marginally fair."""
    of_seed = 0.1 if shared[1] else 0.0
    rest = math.sqrt(1 - 0.15 - of_seed**2)
    latent = math.sqrt(0.15) * shared[0][topics] + of_seed * rng.normal() + rest * rng.normal(size=len(topics))
    return (norm.cdf(latent) < chances).astype(float)


@pytest.mark.parametrize("each", [2, 6])
@SEEDS
def test_length_controlled_win_rates(seeds: int, each: int) -> None:
    rng, covered = np.random.default_rng(20 + seeds + each), []
    topics = np.repeat(np.arange(TOPICS), each)
    for _ in range(TRIALS):
        shared, games = (rng.normal(size=TOPICS), seeds > 1), []
        for _ in range(seeds):
            gap = rng.normal(-20, 60, len(topics))
            wins = wins_of(rng, expit(0.4 - np.tanh(gap / 60)), topics, shared)
            games.append(Games(wins, 200 - gap, np.full(len(topics), 200.0), topics))
        found = length_controlled_interval(games, n=2000 if seeds == 1 else 300)
        covered.append(found.low <= expit(0.4) <= found.high)
    check(f"length-controlled win rate, {TOPICS} x {each}", seeds, covered)


@SEEDS
def test_bradley_terry_ratings(seeds: int) -> None:
    rng, covered, true = np.random.default_rng(40 + seeds), [], np.array([0.0, 0.3, 0.6, 0.9])
    names = [f"method{i}" for i in range(4)]
    pairs = [(i, j) for i in range(4) for j in range(i)]
    for _ in range(TRIALS):
        tables = []
        for i, j in pairs:
            shared = (rng.normal(size=TOPICS), seeds > 1)
            chances = np.full(len(CLUSTERS), expit(true[i] - true[j]))
            for seed in range(seeds):
                won = wins_of(rng, chances, CLUSTERS, shared)
                columns = {"a": names[i], "b": names[j], "seed": seed, "prompt_id": CLUSTERS, "probability": won}
                tables.append(pd.DataFrame(columns))
        found = rate(pd.concat(tables), names[0], n=2000 if seeds == 1 else 300)
        for name, strength in zip(names[1:], true[1:], strict=True):
            one, truth = found.elo[name], 1000 + ELO_SCALE * strength
            covered.append(one.low <= truth <= one.high)
    check("Bradley-Terry", seeds, covered)


@SEEDS
def test_equal_methods_seldom_get_a_verdict(seeds: int) -> None:
    """Eight methods as good as SFT: the chance that any of them is called better or worse, after Holm."""
    rng, wrong = np.random.default_rng(60 + seeds), []
    for _ in range(TRIALS):
        values, _ = scores(rng, 9, seeds, equal=True)
        found = [stats.paired_difference(seeds_of(one - values[-1]), n=2000) for one in values[:-1]]
        adjusted = stats.holm([one.p_value for one in found])
        wrong.append(any(p <= 0.05 and one.verdict.outcome != "cannot tell"
                         for p, one in zip(adjusted, found, strict=True)))  # fmt: skip
    print(f"a wrong verdict among 8, {seeds} seeds: {np.mean(wrong):.3f}")
    assert np.mean(wrong) <= 0.05


def test_equal_win_rates_of_two_seeds_and_few_prompts_seldom_get_a_verdict() -> None:
    """The same of wins: by chance both seeds win equally many of 30 prompts one time in ten, and seem to be certain."""
    rng, wrong = np.random.default_rng(70), []
    for _ in range(TRIALS):
        wins = rng.choice([-0.5, 0.5], (8, 2, 30))
        found = [stats.paired_difference([(seed, np.arange(30)) for seed in one], n=500) for one in wins]
        told = [one.p_value if one.verdict.outcome != "cannot tell" else 1.0 for one in found]
        wrong.append(min(stats.holm(told)) <= 0.05)
    print(f"a wrong verdict among 8 by wins, 2 seeds of 30 prompts: {np.mean(wrong):.3f}")
    assert np.mean(wrong) <= 0.05
