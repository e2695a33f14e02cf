"""Files of new rows as a model takes them; names and arrays on their way. No server is asked."""

import json
import keyword
import re
from decimal import Decimal
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.errors import DataError, NotFoundError, SchemaError
from helpers.inputs import (
    csv_file,
    new_rows,
    picture_files,
    requests,
    row_files,
    table_columns,
    values,
    wire,
)
from helpers.inputs.signature import Signature, Tensor

ROOMS = {
    "required": ["size (m²)", "kind", "built_year"],
    "properties": {
        "size (m²)": {"type": "number", "nullable": True, "x-input": "size_m_2"},
        "kind": {"type": "string", "nullable": True},
        "built_year": {"type": "number", "nullable": False},
    },
    "x-missing": {"number": -1.0, "string": ""},
}
ONE = Signature({"x": Tensor("float32", (None, 2))}, {"y": Tensor("float32", (None,))})
TEXT = Signature({"text": Tensor("string", (None,))}, {"y": Tensor("float32", (None,))})
BIG = 2**53 + 1  # which float64 rounds
CSV = 'name,kind,"size (m²)",built\nthe first,007,"1,200 m²",2019-03-01\nthe second,b,,2020-01-05\n'


def test_a_table_gets_its_columns_and_keeps_the_files(tmp_path, capsys):
    path = tmp_path / "rooms.csv"
    path.write_text(CSV, encoding="utf-8")
    found = new_rows.read(str(path), ROOMS, ONE, None)
    assert found.rows["size (m²)"].tolist()[0] == 1200
    assert np.isnan(found.rows["size (m²)"][1])
    assert found.rows["kind"].tolist() == ["007", "b"]
    assert found.rows["built_year"].tolist() == [2019, 2020]
    assert "Left aside, as the model does not take them: name" in capsys.readouterr().out
    answers = pd.DataFrame({"kind": ["x", "y"], "probability_x": [0.9, 0.1]})
    frame = new_rows.with_answers(found, answers)
    assert list(frame) == ["name", "kind", "size (m²)", "built", "predicted_kind", "probability_x"]
    where = new_rows.write(frame, str(path), None)
    assert where == str(tmp_path / "rooms-predictions.csv")
    assert pd.read_csv(where, dtype=str)["kind"].tolist() == ["007", "b"]


def test_one_row_is_enough_and_a_missing_column_is_refused(tmp_path):
    path = tmp_path / "one.csv"
    path.write_text(CSV.rsplit("\n", 2)[0])
    assert len(new_rows.read(str(path), ROOMS, ONE, None).rows) == 1
    path.write_text("kind,other\na,1\n")
    with pytest.raises(SchemaError, match=r"lacks what the model takes: size .*, built_year"):
        new_rows.read(str(path), ROOMS, ONE, None)


def test_no_row_is_lost(tmp_path):
    """Of one column and of several, empty or with a word for a gap, which only a table knows."""
    one = {
        "required": ["x"], "properties": {"x": {"type": "number", "nullable": True}},
        "x-missing": {"number": -1.0},
    }  # fmt: skip
    path = tmp_path / "rows"
    for content in ('x\n1\n""\n4\n', "x\r\n1\r\n\r\n4\r\n\r\n", 'x\n1\n"NA"\n4',
                    '{"x": 1}\n{"x": null}\n{"x": "4"}'):  # fmt: skip
        path.write_bytes(content.encode())
        (part,) = new_rows.read_parts(str(path), one, None)
        for rows in (part, new_rows.read(str(path), one, ONE, None).rows):
            np.testing.assert_equal(rows["x"].to_numpy(), [1, np.nan, 4])
    path.write_text("kind,size (m²),built_year\n-,1,2000\n,,\nb ,NA,2001\n", encoding="utf-8")
    found = new_rows.read(str(path), ROOMS, ONE, None)
    assert found.rows["kind"].tolist() == [None, None, "b"]
    assert found.rows["built_year"].isna().tolist() == [False, True, False]
    assert found.given["kind"].tolist()[::2] == ["-", "b "]
    path.write_text('review\ngood, mostly\n""\nNA\nnull\n007\n')
    expected = ["good, mostly", "", "NA", "null", "007"]
    assert new_rows.read(str(path), {}, TEXT, None).rows == expected
    path.write_text('{"text": "NA"}\n{"text": null}\n')
    assert new_rows.read(str(path), {}, TEXT, None).rows["text"].tolist() == ["NA", ""]


def test_files_are_read_as_training_reads_them(tmp_path, monkeypatch):
    """Separators, encodings, any name; whole or in parts."""
    path = tmp_path / "rows.TXT"
    frame = pd.DataFrame({"size (m²)": ["1,5", "2,0"] * 4, "kind": ["ü", "007"] * 4})
    frame["built_year"] = [2**60 + 1, 3] * 4
    path.write_bytes(frame.to_csv(index=False, sep=";").encode("cp1252"))
    monkeypatch.setattr(csv_file, "CELLS", 1)
    monkeypatch.setattr(csv_file, "LEAST", 3)
    parts = list(new_rows.read_parts(str(path), ROOMS, None))
    assert [len(part) for part in parts] == [3, 3, 2]
    rows = new_rows.read(str(path), ROOMS, ONE, None).rows
    pd.testing.assert_frame_equal(pd.concat(parts), rows)
    assert rows["size (m²)"].tolist() == [1.5, 2.0] * 4
    assert rows["kind"].tolist() == ["ü", "007"] * 4
    monkeypatch.setattr(row_files, "CHUNK_ROWS", 3)
    frame["size (m²)"] = [1.5, None] * 4
    frame["kind"] = pd.Series([10**17 + 1, 14.0] * 4, dtype=object)
    frame.to_json(path, orient="records", lines=True)
    parts = list(new_rows.read_parts(str(path), ROOMS, None))
    assert [list(part.index) for part in parts] == [[0, 1, 2], [3, 4, 5], [6, 7]]
    pd.testing.assert_frame_equal(
        pd.concat(parts), new_rows.read(str(path), ROOMS, ONE, None).rows, check_index_type=False
    )
    assert pd.concat(parts)["kind"].tolist() == [str(10**17 + 1), "14"] * 4


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty; expected a CSV"),
        (b"PAR1\0\0", "is a binary file; expected text"),
        (b"kind\na\n", 'has one column ."kind".; expected two or more'),
        (b'{"kind": "a", "size (m2)": 1}\n{"kind"', "is not lines of JSON .Expecting"),
        (b'{"kind": "\xe4"}', "is not lines of JSON .it is not UTF-8"),
        (b'{"kind": 1}\n[1, 2]', "is not lines of JSON .row 1 is no object"),
    ],
)
def test_what_is_no_file_of_rows_is_refused(tmp_path, content, said):
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=said):
        new_rows.read(str(path), ROOMS, ONE, None)
    with pytest.raises(DataError, match=said):
        list(new_rows.read_parts(str(path), ROOMS, None))


def test_json_lines_of_inputs_keep_the_others_and_are_refused_without_theirs(tmp_path, capsys):
    two = Signature(
        {"unit_price": Tensor("float32", (None, 1)), "x": Tensor("float32", (None, 2))}, {}
    )
    path = tmp_path / "rows.jsonl"
    rows = [{"id": n, "x": [n, 1.5], "unit price": n} for n in range(3)]
    for text in ("\n".join(map(json.dumps, rows)), json.dumps(rows)):
        path.write_text(text)
        found = new_rows.read(str(path), {}, two, None)
        assert "Left aside, as the model does not take them: id" in capsys.readouterr().out
        assert found.rows["x"].tolist() == [[0, 1.5], [1, 1.5], [2, 1.5]]
        assert found.rows["unit_price"].tolist() == [0, 1, 2]
        frame = new_rows.with_answers(found, np.zeros(3))
        assert list(frame) == ["id", "x", "unit price", "answer"]
        assert frame["x"][1] == "[1, 1.5]"
    path.write_text('{"x": [1, 2]}')
    with pytest.raises(SchemaError, match="lacks what the model takes: unit_price. It has x"):
        new_rows.read(str(path), {}, two, None)
    path.write_text('{"x": [1, 2], "unit_price": 1}\n{"x": [1, 2]}')
    with pytest.raises(SchemaError, match="Row 1 of the file lacks unit_price"):
        new_rows.read(str(path), {}, two, None)


def test_rows_without_an_answer_are_named(tmp_path, capsys):
    path = tmp_path / "windows.csv"
    path.write_text("a,b\n1,2\n3,\n5,6\n")
    found = new_rows.read(str(path), {}, ONE, None)
    assert np.isnan(found.rows[1, 1])
    new_rows.with_answers(found, found.rows.sum(axis=1))
    assert capsys.readouterr().out == "1 of 3 rows have a gap, and so no answer: rows 1\n"
    new_rows.with_answers(found, np.zeros(3))
    assert capsys.readouterr().out == ""


def test_texts_are_the_longest_column_as_in_training(tmp_path, capsys):
    path = tmp_path / "reviews.csv"
    path.write_text("id,review,label\n1,a good one,pos\n2,a bad one,neg\n")
    found = new_rows.read(str(path), {}, TEXT, None)
    assert found.rows == ["a good one", "a bad one"]
    assert list(found.given) == ["id", "review", "label"]
    assert "does not take them: id, label" in capsys.readouterr().out


def test_pictures_of_a_folder_are_found_below_it(tmp_path):
    for name in ("a/1.png", "b/1.JPG", "b/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"content")
    found = new_rows.read(str(tmp_path), {}, TEXT, None)
    assert (found.rows, found.given["file"].tolist()) == ([b"content"] * 2, ["a/1.png", "b/1.JPG"])
    found = new_rows.read(str(tmp_path / "a"), {}, TEXT, None)
    assert found.given["file"].tolist() == ["1.png"]


def test_json_lines_of_a_table_and_of_a_tensor(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [{"size (m²)": 3, "kind": "a", "built_year": 2000, "more": 1}] * 2
    path.write_text("\n".join(map(json.dumps, rows)))
    assert new_rows.read(str(path), ROOMS, ONE, None).rows["size (m²)"].tolist() == [3, 3]
    path.write_text('{"x": [1, 2]}\n{"x": [3, 4]}\n')
    assert new_rows.read(str(path), {}, ONE, None).rows["x"].tolist() == [[1, 2], [3, 4]]
    path.write_text('{"x": [1, 2]}\n{"x": [3, ')
    with pytest.raises(DataError, match="is not lines of JSON"):
        new_rows.read(str(path), {}, ONE, None)


def test_a_matrix_and_texts_without_a_header_of_the_models_own(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("a,b\n1,2\n3,4.5\n")
    assert new_rows.read(str(path), {}, ONE, None).rows.tolist() == [[1, 2], [3, 4.5]]
    path.write_text("review\nvery good\nnot so\n")
    assert new_rows.read(str(path), {}, TEXT, None).rows == ["very good", "not so"]


def test_pictures_are_found_in_folders_and_by_patterns(tmp_path):
    for name in ("b.PNG", "a.jpg", "notes.txt"):
        (tmp_path / name).write_bytes(name.encode())
    found = new_rows.read(str(tmp_path), {}, TEXT, None)
    assert (found.given["file"].tolist(), found.rows) == (["a.jpg", "b.PNG"], [b"a.jpg", b"b.PNG"])
    assert picture_files.find(str(tmp_path / "*.jpg"), None) == [str(tmp_path / "a.jpg")]
    assert new_rows.write(found.given, str(tmp_path), None) == f"{tmp_path}-predictions.csv"
    with pytest.raises(NotFoundError, match="names no file of rows, and no picture"):
        new_rows.read(str(tmp_path / "*.gif"), {}, TEXT, None)


def test_two_columns_of_one_name_are_refused():
    two = Signature({name: Tensor("float32", (None,)) for name in "ab"}, {})
    frame = pd.DataFrame([[1.0, 2.0]], columns=["a", "a"])
    with pytest.raises(SchemaError, match='has 2 columns "a"; expected one'):
        values.fit(frame, two)
    assert values.fit(frame, ONE)["x"].tolist() == [[1, 2]]  # a matrix has no names


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text() | st.sampled_from([*keyword.kwlist, "self", "a_b", "A_B"]), unique=True))
def test_any_names_become_ones_that_tensorflow_takes(columns):
    names = wire.input_names(columns)
    assert list(names) == columns
    assert len({name.lower() for name in names.values()}) == len(columns)
    for column, name in names.items():
        assert name.isascii()
        assert name.isidentifier()
        assert not keyword.iskeyword(name)
        assert name != "self"
        if column.lower() in ("size", "unit_price"):
            assert name == column


def test_rows_are_packed_in_the_inputs_own_types():
    two = [np.array([[1, 2], [3, 4]], "uint8"), np.array([[0.5], [1.5]], "float32")]
    packed = wire.pack(two)
    assert packed == b"".join(bytes([1 + 2 * i, 2 + 2 * i]) + two[1][i].tobytes() for i in (0, 1))
    both = {"a": Tensor("uint8", (None, 2)), "b": Tensor("float32", (None, 1))}
    assert wire.record_dtype(both) == "uint8"
    name = wire.packed_name(Signature(both, {}))
    assert name.startswith("packed_")
    assert name != wire.packed_name(Signature(both, {"y": Tensor("float32", (None,))}))
    alike = {"y": Tensor("float32", (None,)), "y_bytes": Tensor("string", (None,))}
    assert wire.packed_name(Signature(both, alike)) == ""
    for about in (Tensor("string", (None,)), Tensor("float32", (None, None)), Tensor("bool", ())):
        assert wire.packed_name(Signature({"a": about}, {})) == ""


@pytest.mark.parametrize(
    ("given", "about", "expected"),
    [
        ([1, 2], Tensor("float32", (None, 1)), [[1.0], [2.0]]),
        ([[1], [2]], Tensor("int64", (None,)), [1, 2]),
        ([1.0, 2.0], Tensor("int32", (None,)), [1, 2]),
        (pd.Series([True, False]), Tensor("bool", (None,)), [True, False]),
        ([b"x\0", "y"], Tensor("string", (None,)), [b"x\0", "y"]),
        (np.array(["ab", "c"]), Tensor("string", (None, 1)), [["ab"], ["c"]]),
        ([[1, 2, 3]], Tensor("float16", None), [[1, 2, 3]]),
        ([2**64 - 1, BIG], Tensor("uint64", (None,)), [2**64 - 1, BIG]),
        ([BIG, 1.0, True], Tensor("int64", (None,)), [BIG, 1, 1]),
        ([True, False], Tensor("uint64", (None,)), [1, 0]),
        (pd.Series([-BIG, 2**60 + 1], dtype=object), Tensor("int64", (None,)), [-BIG, 2**60 + 1]),
        (np.array([-(2.0**63)]), Tensor("int64", (None,)), [-(2**63)]),
        (pd.DataFrame({k: pd.array([BIG], "Int64") for k in "abc"}), Tensor("int64", (None, 3)),
         [[BIG] * 3]),
        (pd.DataFrame({"a": [BIG], "b": [1.0]}), Tensor("int64", (None, 2)), [[BIG, 1]]),
        (pd.DataFrame({"x": [1.0], "y": 2.0, "z": 3.0}), Tensor("float32", (None, 3)), [[1, 2, 3]]),
        (pd.DataFrame({"x": [1.0, 2.0]}), Tensor("float32", (None, 1)), [[1], [2]]),
        ([Decimal("1.5"), True, 2], Tensor("float32", (None,)), [1.5, 1, 2]),
        ([np.inf], Tensor("float16", (None,)), [np.inf]),
        (3.0, Tensor("int64", ()), 3),
        (np.array(BIG, object), Tensor("uint64", ()), BIG),
    ],
)  # fmt: skip
def test_values_become_what_an_input_is(given, about, expected):
    found = values.fit(given, Signature({"x": about}, {}))["x"]
    assert found.tolist() == expected
    assert found.dtype == (object if about.dtype == "string" else about.dtype)


def test_a_gap_among_numbers_is_no_number_and_no_text():
    rows = pd.DataFrame({"a": pd.array([1, None], dtype="Int64"), "b": 1.5})
    found = values.fit(rows, ONE)["x"]
    np.testing.assert_array_equal(found, [[1, 1.5], [np.nan, 1.5]])
    whole = Signature({"x": Tensor("int64", (None, 2))}, {})
    with pytest.raises(SchemaError, match="holds nan; expected int64"):
        values.fit(rows.assign(b=BIG), whole)


DAY = pd.Timestamp("2020-01-01")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("given", "kind", "said"),
    [
        (np.array([2.0**63]), "int64", r"holds 9\.22\d+e\+18; expected int64"),
        ([BIG, 2**63], "int64", "holds 9223372036854775808; expected int64"),
        ([2**64], "uint64", "holds 18446744073709551616; expected uint64"),
        (np.array([np.inf]), "uint8", "holds inf; expected uint8"),
        ([1e39], "float32", r"holds 1e\+39; expected float32, n: numbers from -3.40282e\+38 to"),
        (np.array([70_000]), "float16", "holds 70000; expected float16"),
        ([10**400], "float64", "is whole numbers beyond float64; expected"),
        (pd.to_datetime(["2020-01-01"]), "float32", "is dates; expected float32"),
        ([1, DAY], "float32", "is dates; expected"),
        (pd.to_timedelta(["1d"]), "int64", "is durations; expected"),
        ([1 + 2j], "float32", "is complex numbers; expected"),
        (np.array(["3", 4], object), "int64", "is text; expected"),
        ([{"a": 1}], "float32", "is a dict; expected"),
        (np.array([[1], [1, 2]], object), "float32", "is lists that differ in length; expected"),
        ([1j], "complex64", '"x" is complex64, n; JSON has no complex numbers'),
        (SimpleNamespace(as_numpy_iterator=list), "float32", "are a tf.data.Dataset; expected"),
    ],
)
def test_what_would_change_on_its_way_is_refused_by_what_it_is(given, kind, said):
    with pytest.raises(SchemaError, match=said):
        values.fit(given, Signature({"x": Tensor(kind, (None,))}, {}))


def test_whole_numbers_of_a_file_are_read_to_their_last_digit(tmp_path):
    three = Signature({name: Tensor("int64", (None,)) for name in "abc"}, {})
    path = tmp_path / "rows.csv"
    path.write_text(f"a,b,c,d\n{BIG},007,{2**63 - 1},x\n-{BIG},008,1,y\n")
    found = values.fit(new_rows.read(str(path), {}, three, None).rows, three)
    expected = {"a": [BIG, -BIG], "b": [7, 8], "c": [2**63 - 1, 1]}
    assert {name: column.tolist() for name, column in found.items()} == expected
    matrix = Signature({"a": Tensor("int64", (None, 2))}, {})
    path.write_text(f"a,b\n{BIG},1.0\n{BIG},2.0\n")
    found = values.fit(new_rows.read(str(path), {}, matrix, None).rows, matrix)
    assert found["a"].tolist() == [[BIG, 1], [BIG, 2]]
    for written in ("9,007,199,254,740,993", f"{BIG}.0"):
        path.write_text(f'a,b\n"{written}",1\n"{written}",2\n')
        with pytest.raises(SchemaError, match=f"holds '{written}' in row 0; expected a whole"):
            new_rows.read(str(path), {}, matrix, None)
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"a": {BIG}, "b": 1, "c": 1.0}}\n{{"a": 2, "b": -{BIG}, "c": 1}}\n')
    found = values.fit(new_rows.read(str(path), {}, three, None).rows, three)
    assert (found["a"].tolist(), found["b"].tolist()) == ([BIG, 2], [1, -BIG])


def test_answers_come_in_the_type_that_the_model_gives():
    outputs = {"id": Tensor("uint64", (None,)), "code_bytes": Tensor("string", (None,))}
    call = Signature({"x": Tensor("float32", (None,))}, outputs)
    model = SimpleNamespace(instance_schema={}, signatures={"serving_default": call})
    asked = requests.request(model, [1, 2])
    codes = [{"b64": "/w=="}, {"b64": "YQ=="}]
    rows = [{"id": 2**64 - 1, "code_bytes": codes[0]}, {"id": BIG, "code_bytes": codes[1]}]
    columns = {"id": [2**64 - 1, BIG], "code_bytes": codes}
    for found in (asked.gather(rows), asked.read(columns, 0, 2)):
        assert found["id"].tolist() == [2**64 - 1, BIG]
        assert found["code_bytes"].tolist() == [b"\xff", b"a"]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("built_year", [DAY], "2020-01-01 00:00:00 in row 5; expected a number"),
        ("built_year", pd.DatetimeIndex([DAY]).tz_localize("UTC"), "expected a number"),
        ("built_year", pd.Categorical([DAY]), "expected a number"),
        ("built_year", pd.to_timedelta(["1d"]), "1 days 00:00:00 in row 5; expected a number"),
        ("built_year", [1 + 2j], "expected a number"),
        ("built_year", np.array([1j], object), "expected a number"),
        ("built_year", pd.Series([10**400], [5], object), "000 in row 5; expected a number"),
        ("built_year", [b"12"], "b'12' in row 5; expected a number"),
        ("kind", [b"a"], "b'a' in row 5; expected text"),
        ("kind", pd.Categorical([b"a"]), "b'a' in row 5; expected text"),
    ],
)
def test_a_tables_column_takes_nothing_that_only_looks_alike(column, values, said):
    row = {"size (m²)": [1.5], "kind": ["a"], "built_year": [2000]} | {column: values}
    with pytest.raises(SchemaError, match=f'"{column}" holds .*{re.escape(said)}'):
        table_columns.check(ROOMS, pd.DataFrame(row, index=[5]))


def test_a_tables_numbers_may_be_categories_and_texts():
    rows = {"size (m²)": pd.Categorical([2, None]), "kind": pd.Categorical(["a", "b"]),
            "built_year": np.array(["2000", Decimal(2001)], object)}  # fmt: skip
    found = table_columns.check(ROOMS, pd.DataFrame(rows))
    expected = {"size (m²)": [2, -1], "kind": ["a", "b"], "built_year": [2000, 2001]}
    assert {name: column.tolist() for name, column in found.items()} == expected
