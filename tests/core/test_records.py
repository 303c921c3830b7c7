import pytest

from alignarena.core.errors import BadInput
from alignarena.core.records import Budget, Ledger


def test_ledgers_add_counts_and_keep_the_larger_peak() -> None:
    first = Ledger(completions=3, labels=1.5, seconds=2.0, peak_memory_mib=700.0)
    second = Ledger(completions=4, labels=0.5, seconds=1.0, peak_memory_mib=500.0)
    assert first + second == Ledger(completions=7, labels=2.0, seconds=3.0, peak_memory_mib=700.0)
    assert first + Ledger() == first


def test_ledgers_subtract_and_multiply_counts_and_keep_the_peak() -> None:
    first = Ledger(completions=3, labels=1.5, seconds=2.0, peak_memory_mib=700.0)
    more = Ledger(completions=7, labels=2.0, seconds=3.0, peak_memory_mib=800.0)
    assert more - first == Ledger(completions=4, labels=0.5, seconds=1.0, peak_memory_mib=800.0)
    times = first.times(2.5)
    assert times == Ledger(completions=8, labels=3.75, seconds=5.0, peak_memory_mib=700.0)
    assert isinstance(times.completions, int)


def test_a_ledger_survives_its_file() -> None:
    ledger = Ledger(prompts=2, flops=1e12)
    assert Ledger.from_dict(ledger.to_dict()) == ledger
    assert Ledger.from_dict({**ledger.to_dict(), "counted_by_a_later_version": 1}) == ledger


def test_a_budget_is_used_up_at_its_first_limit() -> None:
    budget = Budget(labels=10.0, completions=100)
    assert budget.used_up(Ledger(labels=9.9, completions=99)) is None
    assert budget.used_up(Ledger(labels=10.0)) == "labels"
    assert budget.used_up(Ledger(completions=101)) == "completions"
    assert budget.used_up(Ledger(labels=10.0), {"completions", "seconds"}) is None
    assert budget.used_up(Ledger(labels=10.0, completions=100), {"completions"}) == "completions"
    assert Budget().used_up(Ledger(flops=1e30, seconds=1e9)) is None


def test_a_fraction_of_a_budget_scales_every_limit() -> None:
    half = Budget(track="compute", flops=8.0, seconds=3.0).scaled(0.5)
    assert half == Budget(track="compute", flops=4.0, seconds=1.5)
    assert half.limits() == {"flops": 4.0, "seconds": 1.5}


def test_an_unknown_track_names_the_nearest() -> None:
    with pytest.raises(BadInput, match="did you mean 'labels'"):
        Budget(track="label")
