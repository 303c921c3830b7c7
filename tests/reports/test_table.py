from __future__ import annotations

import csv
import io

import pytest

from alignarena.reports.table import Shown, csv_text, latex, markdown, number, plain


def test_text_is_escaped_for_each_format() -> None:
    table = plain("t", "", "", ["a_b", "c"], [["x|y <b> 50% & $_{}~^\\", None], ['say "hi", you', 0.25]])
    assert "| x\\|y &lt;b&gt; 50% &amp; $_{}~^\\\\ | \u2013 |" in markdown(table)
    assert r"x|y \textless{}b\textgreater{} 50\% \& \$\_\{\}\textasciitilde{}" in latex(table)
    assert r"\textasciicircum{}\textbackslash{} & -- \\" in latex(table)
    assert list(csv.DictReader(io.StringIO(csv_text(table))))[1] == {"a_b": 'say "hi", you', "c": "0.25"}


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(1234567.0, 0, "1,234,567"), (-0.0001, 3, "0.000"), (-0.5, 2, "-0.50"), (0.0006, 3, "0.001")],
)
def test_numbers_are_rounded_the_same_way_everywhere(value: float, digits: int, text: str) -> None:
    assert number(value, digits) == text


def test_a_page_sorts_alike_whatever_a_processor_makes_of_the_last_digits() -> None:
    assert Shown("0.66", sort=0.1 + 0.2).sort_key == Shown("0.66", sort=0.3).sort_key == "0.3"
    assert float(Shown("1,234,567", sort=1234567.0).sort_key) == pytest.approx(1234567.0, rel=1e-5)
    assert Shown("DONE", sort="DONE").sort_key == "DONE"
    assert Shown(reason="not estimable").sort_key == ""
