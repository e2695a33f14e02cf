"""Tables: what is built in, and what real CSV files bring."""

import dataclasses
import gzip
import hashlib
import http.server
import importlib.util
import json
import keyword
import random
import shutil
import sys
import threading
import warnings
import zipfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import helpers
from helpers import baselines, data, plots, storage
from helpers.errors import CloudError, DataError, NotFoundError, SettingError
from helpers.inputs import schema

ROWS = 60
GAME_SALES = "dca0408428821bd3e4eb215c5449bc3986f8c3947426fec3e567a5dbd3c1f479"


@pytest.fixture
def load(tmp_path):
    """Gives a function that writes a CSV file and loads it."""

    def load(content, **arguments) -> data.Table:
        path = tmp_path / "table.csv"
        if isinstance(content, dict):
            content = pd.DataFrame(content).to_csv(index=False)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return data.load(str(path), **arguments)

    return load


def columns(**more) -> dict:
    """A usable table: two numbers, a text and a target, with what a test adds."""
    draw = np.random.default_rng(3)
    size, side = draw.normal(50, 9, ROWS).round(3), draw.choice(["left", "right"], ROWS)
    price = (3 * size + draw.normal(0, 4, ROWS)).round(2)
    return {
        "size": size,
        "age": draw.normal(9, 2, ROWS).round(2),
        "side": side,
        **more,
        "price": price,
    }


def noted(table: data.Table, *words: str) -> bool:
    return any(all(word in note for word in words) for note in table.notes)


def everything(table: data.Table) -> pd.DataFrame:
    return pd.concat([table.train, table.test]).sort_index()


@pytest.mark.parametrize("source", ["game_sales", "wine"])
def test_a_trial_never_sees_the_test_rows(source, monkeypatch):
    whole = data.load(source)
    monkeypatch.setenv("CLOUD_ML_TRIAL_ID", "1")
    assert helpers.in_trial()
    trial = data.load(source)
    pd.testing.assert_frame_equal(everything(trial), whole.train.sort_index())
    assert len(trial.test) == pytest.approx(len(whole.train) / 4, abs=2)
    assert noted(trial, "validation rows")
    pd.testing.assert_frame_equal(data.load(source, trial=False).test, whole.test)
    monkeypatch.delenv("CLOUD_ML_TRIAL_ID")
    assert not helpers.in_trial()
    pd.testing.assert_frame_equal(data.load(source, trial=True).test, trial.test)


def test_game_sales_has_the_same_bytes_everywhere():
    table = data.load("game_sales")
    frame = pd.concat([table.train, table.test])
    assert (len(table.train), len(table.test)) == (1000, 400)
    assert (table.task, table.target, table.unit) == ("regression", "total_earnings", "$")
    text = frame.to_csv(index=False, lineterminator="\n")
    assert hashlib.sha256(text.encode()).hexdigest() == GAME_SALES
    assert frame["critic_rating"].drop_duplicates().sort_values().tolist() == [
        2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0,
    ]  # fmt: skip
    assert set(frame["unit_price"]) == {39.99, 49.99, 59.99}


def test_the_noise_is_what_no_model_can_beat():
    """The rule itself, fitted with the terms it has, errs by the noise and no less."""
    table = data.load("game_sales")

    def terms(frame):
        x = frame[list(table.features)].to_numpy()
        half = 2 * (frame["critic_rating"] - 2)
        adult = frame["is_action"] * (1 - frame["suitable_for_kids"])
        return np.column_stack([np.ones(len(x)), x, half**2, half * frame["is_sequel"], adult])

    weights = np.linalg.lstsq(terms(table.train), table.train[table.target], rcond=None)[0]
    answers = pd.DataFrame({table.target: terms(table.test) @ weights}, index=table.test.index)
    assert data.score(table, answers)["mae"] == pytest.approx(table.noise_mae, rel=0.03)


@pytest.mark.parametrize(
    ("name", "task", "classes"),
    [("diabetes", "regression", 0), ("wine", "multiclass", 3), ("breast_cancer", "binary", 2)],
)
def test_built_in_tables_of_scikit_learn(name, task, classes):
    table = data.load(name, seed=1)
    assert (table.task, len(table.classes), table.built_in) == (task, classes, True)
    assert len(table.test) == pytest.approx(len(table.train) / 3, abs=2)
    assert set(table.train[table.target]) <= set(table.classes) or task == "regression"
    assert all(column.isidentifier() for column in table.features)


def test_the_split_depends_on_the_seed_and_keeps_the_shares(load):
    kinds = ["a"] * 20 + ["b"] * 39 + ["rare"]
    table = load(columns(kind=kinds), target="kind", seed=4)
    again = load(columns(kind=kinds), target="kind", seed=4)
    other = load(columns(kind=kinds), target="kind", seed=5)
    assert list(table.test.index) == list(again.test.index) != list(other.test.index)
    assert table.test["kind"].value_counts().to_dict() == {"b": 10, "a": 5}
    assert not set(table.test.index) & set(table.train.index)
    assert noted(table, "only one row", "rare")


@pytest.mark.parametrize(
    ("target", "task", "classes"),
    [
        (["yes", "no"] * 30, "binary", ("no", "yes")),
        ([True, False] * 30, "binary", ("0", "1")),
        ([0, 1] * 30, "binary", ("0", "1")),
        (["a", "b", "c"] * 20, "multiclass", ("a", "b", "c")),
        ([3, 4, 5] * 20, "multiclass", ("3", "4", "5")),
        (list(range(10)) * 6, "regression", ()),
        ([0.5, 1.5, 2.5] * 20, "regression", ()),
    ],
)
def test_the_task_is_read_from_the_target(load, target, task, classes):
    table = load(columns(answer=target), target="answer")
    assert (table.task, table.classes) == (task, classes)


def test_the_task_can_be_set(load):
    table = load(columns(answer=[3, 4, 5] * 20), target="answer", task="regression")
    assert (table.task, table.train["answer"].dtype) == ("regression", "float64")
    with pytest.raises(DataError, match="answer is text .*a regression needs numbers"):
        load(columns(answer=["a", "b"] * 30), target="answer", task="regression")
    with pytest.raises(DataError, match="60 different values; binary takes at most 2"):
        load(columns(), task="binary")
    with pytest.raises(SettingError, match='Did you mean "regression"'):
        load(columns(), task="regresion")


def test_numbers_text_and_gaps(load):
    more = {"flag": [True, False, None] * 20, "gap": [1.5, None, 2.5] * 20}
    table = load(columns(**more, color=["red", None, " blue "] * 20))
    assert table.target == "price"
    assert table.kinds == {
        "size": "number", "age": "number", "side": "text", "flag": "number", "gap": "number",
        "color": "text",
    }  # fmt: skip
    assert set(table.train["color"].dropna()) == {"red", "blue"}
    assert table.train["flag"].isna().any()
    assert set(table.train["flag"].dropna()) == {0.0, 1.0}
    assert table.notes == ()


def test_amounts_become_numbers(load):
    amounts = {
        "paid": [f"${1000 + i:,}.50" for i in range(ROWS)],
        "share": [f"{i // 2} %" for i in range(ROWS)],
        "loss": [f"({i}.5)" for i in range(ROWS)],
        "odd": ["unknown", "?", *map(str, range(ROWS - 2))],
    }
    table = load(columns(**amounts), target="paid")
    frame = pd.concat([table.train, table.test]).sort_index()
    assert frame["paid"].tolist() == [1000.5 + i for i in range(ROWS)]
    assert frame["share"].tolist() == [i // 2 for i in range(ROWS)]
    assert frame["loss"].tolist() == [-i - 0.5 for i in range(ROWS)]
    assert frame["odd"].isna().sum() == 2
    assert table.unit == "$"
    assert noted(table, "paid", "read as numbers")
    assert noted(table, "odd", '"unknown"', "taken as missing")


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_separators(load, separator):
    text = pd.DataFrame(columns()).to_csv(index=False, sep=separator)
    assert set(load(text).features) == {"size", "age", "side"}


def test_decimal_commas(load):
    text = pd.DataFrame(columns(big=[1234.5 + i for i in range(ROWS)])).to_csv(
        index=False, sep=";", decimal=","
    )
    table = load(text.replace("1234,5", "1.234,5"))
    assert table.train["size"].dtype == "float64"
    assert 1234.5 in set(pd.concat([table.train, table.test])["big"])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
def test_encodings(load, encoding):
    text = pd.DataFrame(columns(Straße=["Köln", "Zürich"] * 30)).to_csv(index=False)
    table = load(text.encode(encoding))
    assert set(table.train["Straße"]) == {"Köln", "Zürich"}


@pytest.fixture
def made(tmp_path):
    """Gives a function that writes a frame in a format; gives its path."""

    def made(frame: pd.DataFrame, kind: str) -> str:
        path = tmp_path / f"table.{kind}"
        plain = frame.to_csv(index=False)
        if kind == "csv.gz":
            path.write_bytes(gzip.compress(plain.encode()))
        elif kind == "zip":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("rooms/table.csv", plain)
                archive.writestr("__MACOSX/rooms/._table.csv", "what a Mac adds")
        elif kind == "jsonl":
            frame.to_json(path, orient="records", lines=True, date_format="iso")
        elif kind == "parquet":
            frame.to_parquet(path)
        else:
            with pd.ExcelWriter(path) as book:
                pd.DataFrame([["Rooms, 2026"]]).to_excel(book, header=False, index=False)
                frame.to_excel(book, index=False, startrow=2)
                frame.to_excel(book, index=False, sheet_name="copy")
        return str(path)

    return made


def needs(kind: str, package: str):
    """Pandas reads them with a package that this one does not require."""
    missing = importlib.util.find_spec(package) is None
    return pytest.param(kind, marks=pytest.mark.skipif(missing, reason=f"{package} is missing"))


@pytest.mark.parametrize(
    "kind", ["csv.gz", "zip", "jsonl", needs("parquet", "pyarrow"), needs("xlsx", "openpyxl")]
)
def test_what_people_have(load, made, kind, tmp_path):
    """Each the same as the CSV file, whatever the file is called."""
    more = {
        "zip": [f"{i % 9:04d}" for i in range(ROWS)],
        "when": pd.date_range("2024", periods=ROWS),
    }
    more |= {"paid": [f"${i},000.50" for i in range(ROWS)], "flag": [True, False, None] * 20}
    frame = pd.DataFrame(columns(**more, word=["red", None, "blue "] * 20))
    expected, path = load(frame.to_csv(index=False)), made(frame, kind)
    for name in (path, str(tmp_path / "download")):
        table = data.load(name)
        pd.testing.assert_frame_equal(everything(table), everything(expected))
        assert table.kinds == expected.kinds
        shutil.copyfile(path, tmp_path / "download")


@pytest.mark.parametrize(("kind", "package"), [("parquet", "pyarrow"), ("xlsx", "openpyxl")])
def test_a_package_that_is_missing_is_named(tmp_path, kind, package, monkeypatch):
    path = str(tmp_path / f"table.{kind}")
    if kind == "parquet":
        Path(path).write_bytes(b"PAR1")
    else:
        with zipfile.ZipFile(path, "w") as book:
            book.writestr("[Content_Types].xml", "")
            book.writestr("xl/workbook.xml", "")
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DataError, match=f"needs {package}.*pip install {package}"):
        data.load(path)


def test_archives_and_files_that_are_no_table(tmp_path):
    def refused(name: str, content: bytes | dict, said: str) -> None:
        path = tmp_path / name
        if isinstance(content, dict):
            with zipfile.ZipFile(path, "w") as archive:
                for member, text in content.items():
                    archive.writestr(member, text)
        else:
            path.write_bytes(content)
        with pytest.raises(DataError, match=said):
            data.load(str(path))

    refused("two.zip", {"a.csv": "a,b", "b.csv": "a,b"}, r"zip of 2 files \(a.csv, b.csv\)")
    refused("inner.zip", {"a.png": b"\x89PNG\0\0"}, "binary file")
    refused("a.csv.gz", b"\x1f\x8b" + b"junk" * 9, "can't be unpacked")
    refused("cut.csv.gz", gzip.compress(b"a,b\n1,2\n" * 99)[:-9], "can't be unpacked")
    refused("a.jsonl", b'{"a": 1}\n{"a": 2}\n{"a', "can't be read")
    refused("one.jsonl", b'{"a": 1, "b": 2}\n', "JSON, not CSV")
    refused("short.jsonl", b'{"a": 1, "b": 2}\n{"a": 3, "b": 4}\n', "2 rows with a b; expected 10")


def test_an_empty_spreadsheet_and_a_damaged_file(tmp_path):
    pytest.importorskip("openpyxl")
    pytest.importorskip("pyarrow")
    with pd.ExcelWriter(tmp_path / "empty.xlsx") as book:
        pd.DataFrame().to_excel(book)
    with pytest.raises(DataError, match="empty spreadsheet"):
        data.load(str(tmp_path / "empty.xlsx"))
    (tmp_path / "a.parquet").write_bytes(b"PAR1" + b"junk" * 9)
    with pytest.raises(DataError, match="can't be read"):
        data.load(str(tmp_path / "a.parquet"))


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("(1,234.50)", -1234.5), ("($1,234.50)", -1234.5), ("−3.5", -3.5), ("1'234.50", 1234.5),
        ("1\u202f234", 1234), ("12.5 kg", 12.5), ("12.5kg", 12.5), ("1,200.5 m²", 1200.5),
        ("30 km/h", 30), ("-7 °C", -7), ("EUR 12.50", 12.5), ("12.50 EUR", 12.5),
        ("1.234,50 €", 1234.5),
    ],
)  # fmt: skip
def test_amounts_with_a_unit(load, written, value):
    """As a feature, and as the target, whose unit is known then."""
    digit = next(i for i, sign in enumerate(written) if sign in "123456789")
    amounts = [written[:digit] + str(i % 9 + 1) + written[digit + 1 :] for i in range(ROWS)]
    place = amounts.index(written)
    table = load(columns(amount=amounts))
    assert everything(table)["amount"][place] == value
    table = load({**columns(), "amount": amounts}, task="regression")
    assert everything(table)["amount"][place] == value
    unit = written.strip("-−()0123456789., '\u202f")
    assert table.unit == unit


def test_two_units_are_no_amount(load):
    mixed = [f"{i} {'kg' if i % 2 else 'g'}" for i in range(20)] * 3
    assert load(columns(weight=mixed)).kinds["weight"] == "text"


def test_codes_are_no_quantities(load):
    codes = {
        "zip": [f"{i % 15:05d}" for i in range(ROWS)],
        "store_id": [7 * (i % 12) for i in range(ROWS)],
        "postCode": [8000 + i % 15 for i in range(ROWS)],
        "rooms": [i % 9 for i in range(ROWS)],
    }
    table = load(columns(**codes))
    assert [table.kinds[name] for name in codes] == ["text", "text", "text", "number"]
    frame = everything(table)
    assert frame["zip"].tolist() == codes["zip"]
    assert frame["store_id"].tolist() == [str(code) for code in codes["store_id"]]
    assert noted(table, 'zip holds codes such as "00000"')
    assert noted(table, "store_id holds codes")
    assert load(columns(code=codes["zip"]), target="code").classes[1] == "00001"


@pytest.mark.parametrize("gap", [False, True])
@pytest.mark.parametrize("kind", ["csv.gz", "jsonl", needs("parquet", "pyarrow")])
def test_large_whole_numbers_keep_their_digits(load, made, kind, gap):
    """As classes and as codes; float64 would make these one or two."""
    labels = pd.Series([10**15 + i % 4 for i in range(ROWS)])
    ids = pd.Series([2**60 + i % 3 for i in range(ROWS)], dtype="Int64")
    if gap:
        ids[5] = None
    frame = pd.DataFrame(columns() | {"user_id": ids, "label": labels})
    path = made(frame, kind)
    table = data.load(path, task="multiclass")
    assert table.classes == tuple(str(10**15 + i) for i in range(4))
    assert everything(table)["user_id"].tolist() == [None if i is pd.NA else str(i) for i in ids]
    assert noted(table, "user_id holds codes")
    assert data.load(path, target="user_id").classes == tuple(str(2**60 + i) for i in range(3))


def test_large_whole_numbers_that_measure_stay_numbers(load):
    more = {"wei": [10**18 + i * 10**15 for i in range(ROWS)], "few": [2**53 + 1, 2**53 + 2] * 30}
    table = load(columns(**more))
    assert (table.kinds["wei"], table.kinds["few"]) == ("number", "text")
    assert load(columns(**more), target="wei").task == "regression"
    assert load(columns(few=more["few"]), target="few").classes == (str(2**53 + 1), str(2**53 + 2))
    more = {"long": [str(10**24 + i % 2) for i in range(ROWS)], "half": [2.0**60, 0.5] * 30}
    table = load(columns(**more))
    assert everything(table)["long"].tolist() == more["long"]
    assert table.kinds["half"] == "number"


@pytest.mark.parametrize("kind", ["csv.gz", "jsonl"])
def test_words_for_a_gap_are_missing_and_told(made, kind):
    words = ["NA", "null", " ? ", "red", "blue"] * (ROWS // 5)
    flags = ["yes", "n/a"] * (ROWS // 2)
    frame = pd.DataFrame(columns(color=words, paid=["$1.50", "NA", "$3"] * 20, flag=flags))
    table = data.load(made(frame, kind))
    assert set(table.train["color"]) == {None, "red", "blue"}
    assert noted(table, 'color: "?" (12), "NA" (12), "null" (12) read as missing')
    assert (table.kinds["paid"], int(everything(table)["paid"].isna().sum())) == ("number", 20)
    with pytest.raises(DataError, match="Every row has the same flag"):
        data.load(made(frame, kind), target="flag")


def test_a_leading_zero_far_down(load):
    rows = 100_000
    digits = "".join(
        f"{i % 7}.5,{'0200' if i == rows - 5 else 1000 + i % 9},{i % 11}.5\n" for i in range(rows)
    )
    table = load(f"a,number,b\n{digits}")
    assert table.kinds == {"a": "number", "number": "text"}
    assert "0200" in set(everything(table)["number"])


def test_a_column_that_changes_its_mind_far_down(load):
    rows = 200_000
    lines = (
        f"{i % 7 if i < rows - 9 else 'n.v.'},{i % 7 if i < rows - 9 else f'x{i}'},"
        f"{'' if i < rows // 2 else 'word'},{i % 2 == 0 if i < rows - 9 else 'maybe'},{i % 11}.5\n"
        for i in range(rows)
    )
    table = load("odd,late,gap,truth,b\n" + "".join(lines))
    assert table.kinds == {"odd": "number", "late": "text", "gap": "text", "truth": "text"}
    frame = everything(table)
    assert frame["odd"].isna().sum() == 9
    assert frame["late"][[0, rows - 1]].tolist() == ["0", f"x{rows - 1}"]
    assert frame["gap"][[0, rows - 1]].tolist() == [None, "word"]
    assert set(frame["truth"]) == {"True", "False", "maybe"}


@pytest.mark.parametrize(
    "title",
    [
        "Sales report 2026,,,\n", "Sales report 2026\n\n", '"Sales\nreport 2026"\n',
        "Sales report 2026,,,\r\nby Anna,,,\r\n,,,\r\n",
    ],
)  # fmt: skip
@pytest.mark.parametrize("separator", [",", ";"])
def test_titles_above_the_header_are_skipped(load, title, separator):
    plain = pd.DataFrame(columns()).to_csv(index=False, sep=separator)
    table = load(title.replace(",", separator) + plain)
    assert noted(table, "above the header, skipped", "report 2026")
    pd.testing.assert_frame_equal(everything(table), everything(load(plain)))


@pytest.mark.parametrize(
    "content", ["a,\n" + "1,2\n3,4\n" * 20, ",,c\n" + "1,2,3\n4,5,6\n" * 20, "1,2,3\n4,5,6\n" * 20]
)  # fmt: skip
def test_a_header_with_gaps_is_no_title(load, content):
    table = load(content)
    assert len(everything(table)) >= 39
    assert not noted(table, "skipped")


def test_sentences_are_for_the_text_notebook(load):
    text = [f"the {i} rooms are all too small" for i in range(ROWS)]
    table = load(columns(review=text))
    assert noted(table, "review is left out", "more/text.ipynb")
    assert noted(load(columns(review=text[:30] * 2)), "review holds sentences", "more/text.ipynb")


@pytest.mark.parametrize(
    ("freq", "said"),
    [("h", "every hour"), ("D", "every day"), ("B", "every day"), ("7D", "every week"),
     ("MS", "every month"), ("15min", "every 15 minutes"), ("YS", "every year")],
)  # fmt: skip
@pytest.mark.parametrize("turn", [1, -1])
def test_a_time_series_is_for_the_series_notebook(load, freq, said, turn):
    when = pd.date_range("1990-01-01", periods=ROWS, freq=freq)[::turn]
    table = load({"when": when, **columns()})
    assert noted(table, f"when orders the rows, one value {said}", "more/series.ipynb")
    assert not noted(load({"when": when, **columns()}, target="side"), "series")


def test_an_hour_that_comes_twice_leaves_a_series(load):
    when = pd.date_range("2022-10-20", periods=2000, freq="h", tz="Europe/Berlin")
    table = load({"when": [time.isoformat() for time in when], "side": range(2000)})
    assert noted(table, "when orders the rows, one value every hour", "more/series.ipynb")


def test_dates_that_order_nothing_are_no_series(load):
    days = pd.date_range("1990-01-01", periods=ROWS)
    draw = np.random.default_rng(0)
    mixed, twice = draw.permutation(days), days[np.arange(ROWS) // 2]
    irregular = days[0] + pd.to_timedelta(draw.exponential(1, ROWS).cumsum(), "D")
    assert not noted(load(columns(a=mixed, b=twice, c=irregular.round("s"))), "series")


def test_dates_become_their_parts(load):
    days = pd.date_range("2023-01-30 08:00", periods=ROWS, freq="37h")
    german = [day.strftime("%d.%m.%Y") for day in days]
    table = load(columns(sold=days.strftime("%Y-%m-%d %H:%M"), day=german))
    parts = ("year", "month", "day_of_week", "hour")
    assert set(table.features) >= {f"sold_{part}" for part in parts[1:]} | {"day_month"}
    frame = pd.concat([table.train, table.test]).sort_index()
    assert frame["sold_month"].tolist() == days.month.tolist() == frame["day_month"].tolist()
    assert frame["sold_hour"].tolist() == days.hour.tolist()
    assert noted(table, "sold holds dates", "sold_month")
    # with a zone, the hour that is written
    zoned = load(columns(sold=[day.isoformat() for day in days.tz_localize("Asia/Tokyo")]))
    frame = pd.concat([zoned.train, zoned.test]).sort_index()
    assert frame["sold_hour"].tolist() == days.hour.tolist()


def test_columns_that_say_nothing_are_left_out(load):
    useless = {
        "customer_id": [5000 - 7 * i for i in range(ROWS)],
        "": range(ROWS),
        "name": [f"person {i}" for i in range(ROWS)],
        "country": ["CH"] * ROWS,
        "empty": [None] * ROWS,
    }
    table = load(columns(**useless))
    assert set(table.features) == {"size", "age", "side"}
    assert noted(table, "customer_id is left out", "numbers the rows")
    assert noted(table, "name is left out", "60 different texts")
    assert noted(table, "country is left out", '"CH"')
    assert noted(table, "empty is left out")


def test_columns_keep_their_names(load, capsys):
    text = pd.DataFrame(columns()).to_csv(index=False)
    text = text.replace("size,age,side,price", "unit price (€),size,size,1st price", 1)
    table = load(text, target="1st price")
    assert table.features == ("unit price (€)", "size", "size_2")
    assert table.target == "1st price"
    assert '"size" is size_2' in capsys.readouterr().out
    assert load(text, target="column_1st_price").target == "1st price"  # as it would be in code
    text = text.replace("unit price (€),size,size,1st price", "a, , a b, a-b ", 1)
    table = load(text, target="a-b")
    assert table.features == ("a", "column_2", "a b")
    assert table.target == "a-b "


def drawn(count: int, seed: int) -> list[str]:
    """Column names of every kind that a person or a program may give, all different."""
    draw = random.Random(seed)
    signs = "abXY01_ .,;:/\\'\"!?$%&()[]{}<>=+-*#@^~|€äß日本é\u0301🎮\t"
    names = ["".join(draw.choices(signs, k=draw.randint(1, 20))) for _ in range(count)]
    names += [*keyword.kwlist, "self", "inputs", "args", "kwargs", "training", "name", "values"]
    names += ["a_b", "A_B", "é", "e\u0301", "unit price (€)", "a/b", "🎮", "long " * 60, "column_3"]
    names += ["index", "missing", "column", "target", "label", "0", "1.5", "None", "nan", "a$b$c"]
    names = [name.strip("\t") for name in names]
    return [name for name in dict.fromkeys(names) if name.strip() and name.lstrip() == name]


@pytest.mark.parametrize("seed", [0, 1])
def test_any_name_is_a_column_s_name(load, seed):
    names, draw = drawn(200, seed), np.random.default_rng(seed)
    frame = pd.DataFrame(draw.normal(size=(ROWS, len(names))).round(3), columns=names)
    frame[names[5]] = draw.choice(["x", "y"], ROWS)
    target = names[7]
    table = load(frame.to_csv(index=False), target=target)
    assert table.features == tuple(name for name in names if name != target)
    assert table.target == target
    assert list(data.describe(table).index) == [target, *table.features]
    assert everything(table)[names[-1]].tolist() == frame[names[-1]].tolist()
    about = schema.instance(table)
    assert json.loads(json.dumps(about))["required"] == list(table.features)
    few = dataclasses.replace(table, features=table.features[:30])
    assert baselines.score(few)["linear"]["mae"] > 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # of what other tests left to the collector, which may come by at any moment
        warnings.simplefilter("ignore", ResourceWarning)
        plots.look(table).canvas.draw()
        plots.truth(table, table.test[[target]]).figure.canvas.draw()
    plt.close("all")


def test_a_column_that_repeats_the_target_is_warned_of(load):
    table = load(columns(copy=2 * np.array(columns()["price"]) + 1))
    assert noted(table, "copy nearly repeats price", "leak")
    kinds = np.array(["a", "b", "c"] * 20)
    table = load(columns(code=np.char.upper(kinds), kind=kinds), target="kind")
    assert noted(table, "code nearly repeats kind")
    assert not noted(load(columns(kind=kinds), target="kind"), "repeats")


def test_rows_without_a_target_are_left_out(load):
    answers = np.array(columns()["price"])
    answers[:10] = np.nan
    table = load(columns() | {"price": answers})
    assert len(table.train) + len(table.test) == 50
    assert noted(table, "10 rows without price")


def test_the_proposed_row_of_an_own_table_is_nobodys_row(load):
    table = load(columns())
    rows = set(pd.DataFrame(columns())["size"])
    assert table.proposed["size"].iloc[0] not in rows
    assert list(table.proposed) == list(table.features)


def test_a_description_shows_no_rows(load):
    table = load(columns(), target="side")
    shown = data.describe(table).to_string()
    assert "target (binary)" in shown
    assert "%" in shown
    middle = table.train["size"].sort_values().iloc[20]
    assert str(middle) not in shown


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"\x00\x01\x02" * 100, "binary file"),
        (b"PK\x03\x04" + b"x" * 100, "Save it as CSV"),
        ("<!DOCTYPE html><html></html>", "a web page"),
        ('{"rows": [1, 2]}', "JSON"),
        ("just one column\n1\n2\n", "one column"),
        ("a,b\n1,2\n", "1 rows"),
        ("a,b\n", "0 rows"),
        ("a,b\n1,2\n1,2,3,4\n" * 20, "not a CSV file"),
        ("a,b\n" + "1,2\n3,4\n" * 4, "8 rows with a b; expected 10"),
        ("a,b\n" + "1,2\n3,2\n" * 9, "Every row has the same b"),
        ("id,b\n" + "".join(f"{i},{i % 7}.5\n" for i in range(40)), "no usable column besides b"),
    ],
)
def test_what_is_no_table_is_refused(load, content, said):
    with pytest.raises(DataError, match=said):
        load(content)


def test_a_misspelt_target_names_the_nearest(load):
    with pytest.raises(DataError, match='TARGET="pryce" is not a column. Did you mean "price"'):
        load(columns(), target="pryce")


def test_classes_that_differ_in_signs_only_are_refused(load):
    with pytest.raises(DataError, match='"a b" and "a-b"'):
        load(columns(kind=["a b", "a-b"] * 30), target="kind")


def test_a_file_that_is_not_there(tmp_path, monkeypatch, load):
    load(columns())
    monkeypatch.chdir(tmp_path)
    assert data.load("table.csv").name == "table"
    with pytest.raises(NotFoundError, match='Did you mean "table.csv"'):
        data.load("tabel.csv")
    with pytest.raises(NotFoundError, match='Did you mean "game_sales"'):
        data.load("games_sales")


def test_a_drive_that_is_not_mounted(session):
    """Said where it is read, and before a job is made that could not read it either."""
    said, path = r"Drive that is not mounted\. Run: .*drive\.mount", "/content/drive/MyDrive/a.csv"
    with pytest.raises(NotFoundError, match=said):
        data.load(path)
    with pytest.raises(NotFoundError, match=said):
        helpers.train(session, "01_prototype", parameters={"DATA": path})


def test_a_table_in_a_bucket(session):
    uri = f"gs://{session.bucket}/tables/rooms.csv"
    storage.write_bytes(session, pd.DataFrame(columns()).to_csv(index=False).encode(), uri)
    assert data.load(uri, session=session).name == "rooms"
    with pytest.raises(NotFoundError, match="nowhere.csv does not exist"):
        data.load(f"gs://{session.bucket}/nowhere.csv", session=session)


def test_a_table_on_the_web():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if "rooms" in self.path else 404)
            self.end_headers()
            self.wfile.write(pd.DataFrame(columns()).to_csv(index=False).encode())

        def log_message(self, *_): ...

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        assert data.load(f"{address}/rooms.csv").name == "rooms"
        with pytest.raises(NotFoundError, match="answered 404"):
            data.load(f"{address}/other.csv")
        server.shutdown()
    with pytest.raises(CloudError, match="did not answer"):
        data.load(f"{address}/rooms.csv")


def test_scores_of_classes():
    table = data.load("breast_cancer")
    shares = pd.DataFrame(index=table.test.index)
    shares["target"] = table.test["target"]
    shares["probability_benign"] = np.where(shares["target"] == "benign", 0.9, 0.1)
    shares["probability_malignant"] = 1 - shares["probability_benign"]
    score = data.score(table, shares)
    assert score == {"accuracy": 1.0, "log_loss": pytest.approx(-np.log(0.9))}
