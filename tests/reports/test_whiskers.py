from __future__ import annotations

from alignarena.reports.tables import Shown, Table, measured
from alignarena.reports.whiskers import whiskers


def table(*cells: tuple[str, Shown]) -> Table:
    rows = [[Shown(label, sort=label), cell] for label, cell in cells]
    return Table("t", "", "", ["method", "x"], [], ["method", "x"], rows)


def test_a_column_has_one_scale_and_a_tick_where_sft_stands() -> None:
    shown = table(("sft", measured(0.0, -1.0, 1.0)), ("dpo", measured(2.0, 1.0, 3.0)))
    [_, sft], [_, dpo] = whiskers(shown, {"dpo": "#123456"}, {"sft"})
    # 96 pixels with 4 at each side: -1 lies at 4, 3 at 92, hence 0 at 26 and 2 at 70
    assert 'd="M4.0 6H48.0"' in sft and 'cx="26.0"' in sft
    assert 'd="M48.0 6H92.0" stroke="#123456"' in dpo and 'cx="70.0"' in dpo
    assert 'd="M26.0 0V12"' in sft and 'd="M26.0 0V12"' in dpo


def test_differences_to_sft_are_ticked_at_zero_and_cells_without_interval_stay_empty() -> None:
    shown = table(("sft", Shown(reason="nothing")), ("dpo", measured(2.0, 1.0, 4.0)))
    [_, sft], [_, dpo] = whiskers(shown, {}, {"sft"})
    assert sft == "" and 'd="M4.0 0V12"' in dpo  # 0 is the left end
    assert whiskers(table(("dpo", measured(1.0, float("nan"), 2.0))), {}, ()) == [["", ""]]
