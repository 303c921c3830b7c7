from __future__ import annotations

import numpy as np
import pytest

from alignarena.results import stats
from alignarena.results.resampling import MOST_UNITS, draws, resampled, units_of


def test_a_cluster_is_the_same_unit_in_every_seed() -> None:
    codes, units = units_of([["b", "a", "b"], ["c", "a"]])
    assert ([list(one) for one in codes], units) == ([[1, 0, 1], [2, 0]], 3)


def test_every_draw_has_as_many_units_as_there_are() -> None:
    assert (draws(7, 50).sum(axis=1) == 7).all()
    assert (draws(7, 50) == draws(7, 50)).all()


def test_resampled_sums_by_hand() -> None:
    totals = np.array([[1.0, 10.0], [2.0, 20.0]])
    counts = draws(2, 5).astype(float)
    assert resampled(totals, 5).tolist() == (counts @ totals).tolist()


def test_very_many_clusters_are_merged_and_the_interval_stays_the_same() -> None:
    values = np.random.default_rng(0).normal(size=50_000)
    codes, units = units_of([np.arange(50_000)])
    assert (units, codes[0].max()) == (MOST_UNITS, MOST_UNITS - 1)
    assert set(np.bincount(codes[0])) == {25}
    found = stats.bootstrap_interval(values, np.arange(50_000), n=2000)
    assert found.standard_error == pytest.approx(values.std() / np.sqrt(50_000), rel=0.06)
