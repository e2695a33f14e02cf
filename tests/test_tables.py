import numpy as np
import pandas as pd
import pytest

from helpers.looks.tables import amount, answered, shown


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (4253.259, "$", "$4,250"),
        (-39421.4, "$", "−$39,400"),
        (0.98720139, "", "0.987"),
        (0.00625, "", "0.00625"),
        (1.23e-7, "", "1.2e-07"),
        (59.99, "€", "€60"),
        (12.5, "kWh", "12.5 kWh"),
        (0.99999, "", "1"),
        (12.340001, "", "12.3"),
        (123_456, "", "123,456"),
        (4.0, "", "4"),
        (0, "$", "$0"),
        (float("nan"), "$", ""),
        (float("inf"), "", "inf"),
        (np.float32(227423.22), "$", "$227,000"),
        (None, "", ""),
        (True, "", "True"),
        ("a <b>", "$", "a <b>"),
        (pd.Timestamp("2026-11-27 23:03:03", tz="UTC"), "", "2026-11-27 23:03 UTC"),
    ],
)
def test_a_value_is_written_for_people(value, unit, expected):
    assert amount(value, unit) == expected


def test_a_shown_frame_is_still_the_frame():
    frame = pd.DataFrame({"mae": [4253.259, 39421.4], "r2": [0.98720139, np.nan]}, ["a", "<b>"])
    look = shown(frame, units={"mae": "$"})
    pd.testing.assert_frame_equal(pd.DataFrame(look), frame)
    assert look["mae"].sum() == frame["mae"].sum()
    assert look.sort_values("r2").index[0] == "a"
    for text in (repr(look), look._repr_html_()):
        assert "$4,250" in text
        assert "0.987" in text
        assert "nan" not in text.lower()
    assert "&lt;b&gt;" in look._repr_html_()
    assert "<b>" not in look._repr_html_()


def test_answers_come_before_the_rows_and_one_row_stands_upright():
    rows = pd.DataFrame({"size": [1.5, 2.5], "side": ["left", "right"]})
    answers = pd.DataFrame({"price": [227423.22, 1.0]})
    many = answered(rows, answers, pd.Series([2e5, 1.0]), unit="$")
    assert list(many) == ["→ price", "truth", "size", "side"]
    assert "$227,400" in many._repr_html_()
    one = answered(rows[:1], answers[:1], unit="$")
    assert repr(one).split("\n")[1].split() == ["→", "price", "$227,400"]
    assert len(one) == 3
    assert list(answered(rows, answers, own=False)) == ["→ price", "truth"][:1]
    assert repr(answered(None, [])) == "No rows."


def test_nothing_is_a_sentence_and_rows_are_not_numbered():
    frame = pd.DataFrame({"what": ["endpoint"], "secret_id": [7]})
    look = shown(frame, nothing="Nothing bills.", hidden=("secret_id",))
    assert repr(look).split() == ["what", "endpoint"]
    assert "secret_id" not in look._repr_html_()
    assert look["secret_id"].tolist() == [7]
    none = shown(frame[:0], nothing="Nothing bills.")
    assert none.empty
    assert repr(none) == "Nothing bills."
    assert none._repr_html_() == "<p>Nothing bills.</p>"
