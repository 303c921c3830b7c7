import math

import pytest

from alignarena.benchmarks.perf.entry import Entry, Equality, absolute, of_seconds, relative


def entry(**more):
    given = {"name": "sft", "opponent": "TRL", "work": "w", "unit": "tokens/s", "amount": 60.0}
    return of_seconds([1.0, 2.0, 3.0], [3.0, 2.0, 6.0], **{**given, **more})


def test_ratio_is_the_median_over_pairs_with_its_extremes():
    one = entry()
    assert (one.ratio, one.ratio_low, one.ratio_high, one.repeats) == (2.0, 1.0, 3.0, 3)
    assert (one.ours, one.theirs) == (60 / 6, 60 / 11)
    assert one.met  # the bar of SFT is 2


def test_memory_is_met_from_below():
    share = {"opponent": "TRL", "ratio_low": 0, "ratio_high": 0, "ours": 1, "theirs": 2, "unit": "MiB", "work": "w"}
    assert Entry("dpo_peak_memory", ratio=0.5, repeats=1, **share).met
    assert not Entry("dpo_peak_memory", ratio=0.6, repeats=1, **share).met
    assert not Entry("mfu", ratio=0.4, repeats=1, **share).met


def test_record_has_the_promised_fields():
    record = entry(equality=[Equality("losses", 0.1, 0.05)], settings="sdpa").record()
    promised = {"name", "opponent", "ratio", "ratio_low", "ratio_high", "ours", "theirs", "unit", "work"}
    assert promised <= record.keys()
    assert record["bar"] == 2.0
    assert record["equal"] is False
    assert record["equality"] == [{"what": "losses", "worst": 0.1, "tolerance": 0.05, "met": False}]
    assert record["details"]["settings"] == "sdpa"


@pytest.mark.parametrize(
    ("found", "met"),
    [
        (absolute("x", [1.0, 2.0], [1.0, 2.01], 0.02), True),
        (absolute("x", [1.0, 2.0], [1.0, 2.01], 0.005), False),
        (relative("x", [100.0], [100.5], 0.01), True),
        (relative("x", [0.01], [0.02], 0.01), False),
        (absolute("x", [math.nan], [1.0], 9.0), False),
        (absolute("x", [1.0], [1.0, 2.0], 9.0), False),
        (absolute("x", [], [], 9.0), False),
    ],
)
def test_equality(found, met):
    assert found.met is met
