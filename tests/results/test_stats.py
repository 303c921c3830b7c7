from __future__ import annotations

import math

import numpy as np
import pytest

from alignarena.results import stats


def clustered(rng: np.random.Generator, clusters: int = 60, each: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Values of mean 0 whose clusters share an effect as large as the noise."""
    labels = np.repeat(np.arange(clusters), each)
    return rng.normal(size=clusters)[labels] + rng.normal(size=clusters * each), labels


def test_bootstrap_mean_and_interval_by_hand() -> None:
    # Two clusters with means 0 and 1: a resample has mean 0, .5 or 1 with chances 1/4, 1/2, 1/4.
    interval = stats.bootstrap_interval([0, 0, 1, 1], ["a", "a", "b", "b"])
    assert (interval.mean, interval.low, interval.high) == (0.5, 0.0, 1.0)
    assert interval.standard_error == pytest.approx(math.sqrt(1 / 8), abs=0.01)


def test_rows_of_one_cluster_are_no_more_than_one_draw() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=40)
    once = stats.bootstrap_interval(values, np.arange(40))
    copied = stats.bootstrap_interval(np.repeat(values, 50), np.repeat(np.arange(40), 50))
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high))


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    intervals = [stats.bootstrap_interval(*clustered(rng), n=1000) for _ in range(600)]
    covered = np.mean([interval.low <= 0 <= interval.high for interval in intervals])
    assert 0.92 <= covered <= 0.98
    # Treating rows as independent would not: the test can fail.
    rows = [clustered(rng)[0] for _ in range(600)]
    naive = [stats.bootstrap_interval(values, np.arange(len(values)), n=1000) for values in rows]
    assert np.mean([interval.low <= 0 <= interval.high for interval in naive]) < 0.90


def test_too_little_data_gives_no_interval() -> None:
    assert math.isnan(stats.bootstrap_interval([], []).mean)
    one = stats.bootstrap_interval([0.2, 0.4], ["a", "a"])
    assert one.mean == pytest.approx(0.3)
    assert not one.known


def test_missing_values_are_left_out() -> None:
    assert stats.bootstrap_interval([1.0, math.nan, 3.0], ["a", "b", "c"]).mean == 2.0


def test_t_interval_by_hand() -> None:
    # Means 1, 2, 3: standard error 1/sqrt(3), t(.975, 2) = 4.302653.
    interval = stats.t_interval([1, 2, 3])
    assert interval.high - interval.mean == pytest.approx(4.302653 / math.sqrt(3), abs=1e-6)


def test_sign_flip_p_by_hand() -> None:
    # All of 3 clusters agree: 2 of the 8 sign patterns are as extreme.
    assert stats.sign_flip_p([1.0, 2.0, 3.0], ["a", "b", "c"]) == 0.25
    assert stats.sign_flip_p([0.0, 0.0], ["a", "b"]) == 1.0
    assert stats.sign_flip_p(np.ones(40), np.arange(40), n=999) == pytest.approx(1 / 1000)


def test_sign_flip_p_is_uniform_under_the_null() -> None:
    rng = np.random.default_rng(2)
    p_values = np.array([stats.sign_flip_p(*clustered(rng, clusters=30), n=400) for _ in range(500)])
    for level in (0.05, 0.25, 0.5, 0.75):
        assert np.mean(p_values <= level) == pytest.approx(level, abs=0.06)


def test_pairing_narrows_the_interval_when_methods_are_correlated() -> None:
    rng = np.random.default_rng(3)
    shared, labels = clustered(rng)
    a, b = shared + rng.normal(0, 0.3, len(shared)), shared + rng.normal(0, 0.3, len(shared))
    paired = stats.paired_difference([(a - b, labels)])
    unpaired = math.hypot(*(stats.bootstrap_interval(x, labels).standard_error for x in (a, b)))
    assert paired.high - paired.low < 0.5 * 2 * 1.96 * unpaired


@pytest.mark.parametrize(("shift", "outcome"), [(0.8, "better"), (-0.8, "worse"), (0.0, "cannot tell")])
def test_verdict_of_one_seed_is_about_a_checkpoint(shift: float, outcome: str) -> None:
    values, labels = clustered(np.random.default_rng(4))
    found = stats.paired_difference([(values - values.mean() + shift, labels)])
    assert str(found.verdict) == f"{outcome} (checkpoint, 1 seed)"
    assert (found.p_value < 0.05) == (outcome != "cannot tell")


def test_verdict_of_several_seeds_is_about_the_method_and_uses_the_seeds_alone() -> None:
    labels = np.arange(50)
    seeds = [(np.full(50, mean), labels) for mean in (1.0, 2.0, 3.0)]
    found = stats.paired_difference(seeds)
    assert found.verdict.unit == "method, 3 seeds"
    assert found.high - found.difference == pytest.approx(4.302653 / math.sqrt(3), abs=1e-6)
    assert found.p_value == pytest.approx(0.074180, abs=1e-6)  # two-sided t test, t = 2 sqrt 3, 2 degrees of freedom
    assert "below 0.25" in found.test
    assert found.verdict.outcome == "cannot tell"


def test_what_all_seeds_owe_to_the_prompts_they_share_does_not_average_out() -> None:
    # Three seeds agree in all but a shared effect of 60 topics: the seeds' means alone would claim perfect knowledge.
    topics = np.random.default_rng(9).normal(size=60)
    seeds = [(topics, np.arange(60))] * 3
    interval = stats.mean_interval(seeds)
    assert interval.standard_error == pytest.approx(topics.std(ddof=1) / math.sqrt(60), rel=0.03)
    assert interval.freedom == pytest.approx(59)
    # Other topics in each seed share nothing: the seeds' means say it all.
    apart = [(topics + shift, np.arange(60) + 60 * seed) for seed, shift in enumerate((0, 0, 3))]
    assert stats.mean_interval(apart).standard_error == pytest.approx(1.0, rel=0.05)


def test_crossed_interval_by_hand() -> None:
    # Estimates 1, 2, 3: var / 3 = 1/3. Replicates whose covariance is 4 between all seeds, of 11 units: x 11/10.
    drawn = np.array([-2.0, 0.0, 2.0])[:, None] * np.ones(3)
    found = stats.crossed_interval(np.array([1.0, 2.0, 3.0]), drawn, 11)
    assert (found.mean, found.standard_error) == (2.0, pytest.approx(math.sqrt(1 / 3 + 4.4)))
    assert found.freedom == pytest.approx((1 / 3 + 4.4) ** 2 / ((1 / 3) ** 2 / 2 + 4.4**2 / 10))
    # Where they share little, the three seeds decide.
    alone = stats.crossed_interval(np.array([1.0, 2.0, 3.0]), drawn / 20, 11)
    assert (alone.low, alone.freedom) == (stats.t_interval([1, 2, 3]).low, 2)


def test_seeds_that_tie_by_chance_are_taken_to_scatter_as_their_resamples_do() -> None:
    # Replicates of two seeds that share nothing, of variance 4/3 each and of 11 units: x 11/10.
    drawn, common = np.array([[-1.0, -1], [-1, 1], [1, -1], [1, 1]]), np.array([[-1.0], [1], [1], [-1]])
    found = stats.crossed_interval(np.array([0.5, 0.5 + 1e-16]), drawn, 11)
    assert (found.standard_error, found.freedom) == (pytest.approx(math.sqrt(22 / 15 / 2)), 1)
    # What they share, 25 times that, is no part of what tells them apart.
    found = stats.crossed_interval(np.array([0.5, 0.5]), drawn + 5 * common, 11)
    assert found.standard_error == pytest.approx(math.sqrt(22 / 15 * (1 / 2 + 25)))
    # Where they differ at all, it is their difference that says by how much.
    assert stats.crossed_interval(np.array([0.0, 0.1]), drawn, 11).standard_error == pytest.approx(0.05)


def test_equal_win_rates_of_two_seeds_seldom_get_a_verdict() -> None:
    # Thirty prompts won or lost: one time in ten both seeds win equally many, which is no perfect knowledge.
    rng, wrong = np.random.default_rng(11), []
    for _ in range(60):
        wins = rng.choice([-0.5, 0.5], (8, 2, 30))
        found = [stats.paired_difference([(seed, np.arange(30)) for seed in one], n=500) for one in wins]
        told = [one.p_value if one.verdict.outcome != "cannot tell" else 1.0 for one in found]
        wrong.append(min(stats.holm(told)) <= 0.05)
    assert np.mean(wrong) <= 0.05


def test_where_seeds_and_prompts_all_agree_the_signs_of_the_clusters_are_flipped() -> None:
    def found(clusters: int) -> stats.Difference:
        return stats.paired_difference([(np.full(clusters, 0.1), np.arange(clusters))] * 3)

    few, many = found(5), found(30)
    assert (few.p_value, few.verdict.outcome) == (2.0**-4, "cannot tell")
    assert few.test == "sign-flip test over 5 prompt clusters"
    assert (many.p_value, many.verdict.outcome) == (pytest.approx(1e-4, rel=1e-3), "better")
    assert found(1).p_value == 1.0
    assert str(many.verdict) == "better (method, 3 seeds)" and many.smallest_p == 0.25


def test_a_verdict_asks_the_interval_and_the_test() -> None:
    # The interval over seeds has the topics' degrees of freedom, the test the seeds': it may exclude 0 alone.
    topics = np.random.default_rng(12).normal(size=30)
    seeds = [(topics - topics.mean() + mean, np.arange(30)) for mean in (0.59, 0.6, 0.61)]
    found = stats.paired_difference(seeds)
    assert found.low > 0 and 0.05 < found.p_value < 0.15
    assert found.verdict.outcome == "cannot tell"


def test_the_p_value_is_never_surer_than_the_interval_over_seeds() -> None:
    rng = np.random.default_rng(10)
    topics, labels = rng.normal(size=30), np.arange(30)
    for shift in np.linspace(0.0, 0.8, 9):
        seeds = [(topics - topics.mean() + shift + rng.normal(0, 0.1), labels) for _ in range(4)]
        found = stats.paired_difference(seeds)
        assert found.p_value >= 0.05 or found.verdict.outcome != "cannot tell"


def test_the_minimum_detectable_difference_is_detected_four_times_in_five() -> None:
    rng = np.random.default_rng(5)
    values, labels = clustered(rng)
    detectable = stats.paired_difference([(values, labels)]).verdict.minimum_detectable_difference
    tried = [stats.bootstrap_interval(*clustered(rng), n=1000) for _ in range(400)]
    assert np.mean([interval.low + detectable > 0 for interval in tried]) == pytest.approx(0.8, abs=0.1)


def test_holm_by_hand() -> None:
    assert stats.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert stats.holm([]) == []


def test_one_sided_sign_flip_p_by_hand() -> None:
    # Sums 1, 2, 3: of the 8 sign patterns one reaches 6, and two reach 4 or more.
    assert stats.sign_flip_p([1.0, 2.0, 3.0], ["a", "b", "c"], one_sided=True) == 1 / 8
    assert stats.sign_flip_p([-1.0, 2.0, 3.0], ["a", "b", "c"], one_sided=True) == 2 / 8
    assert stats.sign_flip_p([-1.0, -2.0, -3.0], ["a", "b", "c"], one_sided=True) == 1.0


def test_not_worse_p_by_hand() -> None:
    # Losses of .1 in two of three clusters, raised by a margin of .2: sums .1, .1, .2 are all positive.
    one = [(np.array([-0.1, -0.1, 0.0]), ["a", "b", "c"])]
    assert stats.not_worse_p(one, 0.2) == 1 / 8
    # Seeds' means 0, .1, .2 and a margin of .1: t = .2 / (.1 / sqrt 3) = 2 sqrt 3, 2 degrees of freedom, one side.
    seeds = [(np.full(4, mean), np.arange(4)) for mean in (0.0, 0.1, 0.2)]
    assert stats.not_worse_p(seeds, 0.1) == pytest.approx(0.074180 / 2, abs=1e-6)
    same = [(np.zeros(4), np.arange(4))] * 2  # no seed or prompt differs: the signs of the clusters, as with one seed
    assert (stats.not_worse_p(same, 0.1), stats.not_worse_p(same, 0.0)) == (1 / 16, 1.0)
    assert stats.not_worse_p([(np.full(4, -0.2), np.arange(4))] * 2, 0.1) == 1.0


def test_a_method_at_the_margin_is_seldom_called_not_worse_and_one_as_good_as_sft_often() -> None:
    rng, margin = np.random.default_rng(7), 0.4

    def share(shift: float) -> float:
        trials = [clustered(rng) for _ in range(800)]
        return float(np.mean([stats.not_worse_p([(x + shift, y)], margin, n=400) <= 0.025 for x, y in trials]))

    assert share(-margin) == pytest.approx(0.025, abs=0.015)  # size
    # power: cluster means vary by sqrt(1 + 1/3), 60 of them; P(z > 1.96 - .4 / (1.155 / sqrt 60)) = .77
    assert share(0.0) == pytest.approx(0.77, abs=0.06)
    assert share(-2 * margin) < 0.002


def test_the_smallest_p_is_that_of_the_units() -> None:
    labels = np.arange(6)
    found = stats.paired_difference([(np.ones(6), labels)])
    assert found.p_value == found.smallest_p == 2.0**-5
    assert stats.paired_difference([(np.ones(6), labels)] * 4).smallest_p == 2.0**-3
    assert stats.paired_difference([(np.ones(60), np.arange(60))], n=999).smallest_p == 1 / 1000
