"""What work costs."""

import numpy as np
import pytest

from alignarena.core.records import Ledger
from alignarena.harness.meter import Meter, lifetime_peak_mib, peak_memory_mib, reset_peak_memory


def test_counts_add_up() -> None:
    meter = Meter()
    meter.add(sampled_tokens=3, flops=2.0)
    meter.add(sampled_tokens=4, labels=0.5)
    assert meter.ledger == Ledger(sampled_tokens=7, flops=2.0, labels=0.5)
    meter.met.update({"tied pairs": 2})
    meter.restore(Ledger(sampled_tokens=1), {"tied pairs": 1})
    meter.add(sampled_tokens=1)
    assert (meter.ledger, meter.met) == (Ledger(sampled_tokens=2), {"tied pairs": 1})


def test_a_count_that_is_none_is_refused() -> None:
    with pytest.raises(TypeError):
        Meter().add(tokens=3)


def test_time_and_peak_memory_of_a_block_count_even_if_it_fails() -> None:
    reset_peak_memory()
    before, meter = peak_memory_mib(), Meter()
    with pytest.raises(KeyboardInterrupt), meter.timed():
        block = np.ones(50 * 2**20 // 8)
        assert block.sum() > 0
        raise KeyboardInterrupt
    assert meter.ledger.seconds > 0
    assert meter.ledger.peak_memory_mib > before + 30
    assert lifetime_peak_mib() >= meter.ledger.peak_memory_mib


def test_seconds_are_known_while_they_pass_and_go_on_after_a_kill() -> None:
    meter = Meter()
    assert meter.so_far.seconds == 0
    with meter.timed():
        assert meter.so_far.seconds > 0 and meter.ledger.seconds == 0
        meter.restore(Ledger(seconds=100.0), {})  # what a checkpoint knew
        assert meter.so_far.seconds > 100
    assert meter.ledger.seconds == pytest.approx(100, abs=1) and meter.so_far == meter.ledger


def test_the_lifetime_peak_outlives_a_reset() -> None:
    block = np.ones(80 * 2**20 // 8)
    peak = peak_memory_mib()
    del block
    reset_peak_memory()
    assert lifetime_peak_mib() >= peak - 1  # the system counts pages in batches
