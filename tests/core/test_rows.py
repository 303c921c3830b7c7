from datasets import Dataset

from alignarena.core.rows import column, table_of, taken, with_column


def test_a_column_is_added_to_selected_rows_and_replaces_one_of_its_name() -> None:
    rows = Dataset.from_list([{"a": i, "b": -i} for i in range(4)]).select([3, 1])
    added = with_column(rows, "c", ["x", "y"])
    assert added.to_list() == [{"a": 3, "b": -3, "c": "x"}, {"a": 1, "b": -1, "c": "y"}]
    assert with_column(added, "b", [7, 8]).to_list() == [{"a": 3, "c": "x", "b": 7}, {"a": 1, "c": "y", "b": 8}]
    assert rows.column_names == ["a", "b"]


def test_a_selection_is_read_as_it_stands_and_taken_from() -> None:
    chosen = Dataset.from_list([{"a": i, "b": [i] * i} for i in range(5)]).select([4, 2, 0])
    assert column(chosen, "a") == [4, 2, 0]
    assert table_of(chosen).column("b").to_pylist() == [[4] * 4, [2] * 2, []]
    twice = taken(chosen, [2, 0, 0])
    assert twice.to_list() == [{"a": 0, "b": []}, {"a": 4, "b": [4] * 4}, {"a": 4, "b": [4] * 4}]
    assert taken(twice, []).column_names == ["a", "b"] and len(taken(twice, [])) == 0
