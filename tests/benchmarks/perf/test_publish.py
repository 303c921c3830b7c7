import json

import pytest

from alignarena.benchmarks.perf import publish
from alignarena.benchmarks.perf.entry import Equality, of_seconds
from alignarena.benchmarks.perf.store import FILE, merge
from alignarena.core.errors import BadInput

SWEEP = {
    "sweep_sharing": {
        "suite": "quickstart", "rows": ["dpo", "ppo", "base"], "ours": 50.0, "theirs": 100.0,
        "ratio": 0.5, "cpu_ratio": 0.45, "bar": 0.6, "met": True,
        "alone": {"dpo": {"seconds": 60.0}, "ppo": {"seconds": 40.0}},
    },
    "growth": [{"axis": "rows", "what": "dpo_live", "size": 4, "ours": 1.0, "theirs": 2.0, "opponent": "TRL",
                "unit": "seconds a fit"}],
}  # fmt: skip


@pytest.fixture
def docs(tmp_path):
    (tmp_path / "docs" / "images").mkdir(parents=True)
    page = f"before\n\n{publish.BEGIN}\nold\n{publish.END}\nafter\n"
    (tmp_path / "docs" / publish.PAGE).write_text(page)
    return tmp_path / "docs"


@pytest.fixture
def records(tmp_path):
    given = {"opponent": "TRL", "unit": "tokens/s", "amount": 1200.0}
    equal, unequal = Equality("losses", 0.0, 0.1), Equality("losses", 0.3, 0.1)
    merge(tmp_path / FILE, [
        of_seconds([1.0, 1.0], [6.0, 5.0], name="dpo_live", work="w, LoRA r 16", equality=[equal],
                   tried={"sdpa": 0.5}, **given),
        of_seconds([1.0], [1.5], name="sft", work="w, full fine-tuning", equality=[unequal], **given),
        of_seconds([1.0], [0.4], name="mfu", work="w, full fine-tuning", **given),
    ])  # fmt: skip
    return json.loads((tmp_path / FILE).read_text())


def test_only_what_stands_between_the_markers_is_replaced(docs, records):
    publish.publish(records, SWEEP, docs)
    page = (docs / publish.PAGE).read_text()
    assert page.startswith(f"before\n\n{publish.BEGIN}\n") and page.endswith(f"{publish.END}\nafter\n")
    assert "old" not in page
    assert "| 600 tokens/s | 109 tokens/s | 5.50 [5.00, 6.00] | ≥ 5, met | 0 |" in page
    assert "1.50 [1.50, 1.50] | ≥ 2, missed | 0.3 (NOT EQUAL) |" in page
    assert "* TRL: sdpa: 0.50 s" in page
    assert "took 50 s; its trained methods alone, each from an empty cache, 100 s (dpo 60, ppo 40): 0.50" in page
    assert "| rows | dpo_live against TRL | 4 | 1.00 | 2.00 | seconds a fit |" in page
    assert (docs / publish.PLOT).read_bytes().startswith(b"<?xml")


def test_publishing_again_changes_nothing(docs, records):
    publish.publish(records, SWEEP, docs)
    before = [(docs / name).read_bytes() for name in (publish.PAGE, publish.PLOT)]
    publish.publish(records, SWEEP, docs)
    assert [(docs / name).read_bytes() for name in (publish.PAGE, publish.PLOT)] == before


def test_only_a_sweep(docs):
    publish.publish([], SWEEP, docs)
    assert "0.50 of it" in (docs / publish.PAGE).read_text()
    assert not (docs / publish.PLOT).exists()


def test_nothing_to_publish(docs, tmp_path, capsys):
    assert publish.main([str(tmp_path / "nowhere")]) == 2
    assert "run `make bench`" in capsys.readouterr().err


def test_a_page_without_markers(docs, records):
    (docs / publish.PAGE).write_text("nothing")
    with pytest.raises(BadInput, match="lacks the lines"):
        publish.publish(records, {}, docs)
