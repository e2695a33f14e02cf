"""A form is made of what is known of a model: its table's schema, its signature, or nothing."""

import pytest

from helpers.errors import SchemaError
from helpers.inputs.signature import Tensor
from helpers.pages import forms

SCHEMA = {
    "properties": {
        "size": {"type": "number", "nullable": True, "minimum": 1.0, "maximum": 9.0},
        "a kind": {"type": "string", "enum": ["a", "b"], "x-input": "a_kind"},
        "words": {"type": "string"},
    },
    "x-missing": {"number": -1e30, "string": ""},
    "example": {"size": None, "a kind": "b", "words": "some"},
}

# The commas may be decimal ones; of the rest JSON has no word, or Python a limit.
NO_NUMBERS = ["1,5 m", "3,5", "1,2,3", "0,125", "12,34", "1.234,5", "1,234,56", ".", "nan", "-inf",
              "Infinity", "1e400", "9" * 400, "9" * 5000, "--1", "1_000", "0x1", "5 5"]  # fmt: skip


@pytest.fixture
def known():
    return forms.inputs(None, "", SCHEMA)


def test_a_table_gives_fields_by_its_columns(known):
    (example,) = forms.only_example(SCHEMA, known)
    assert example["instance"] == {"size": -1e30, "a_kind": "b", "words": "some"}
    made = forms.fields(known, example["instance"])
    assert [(f["name"], f["kind"], f["value"]) for f in made] == [
        ("size", "number", ""), ("a kind", "choice", "b"), ("words", "text", "some"),
    ]  # fmt: skip
    assert made[0]["note"] == "1 to 9, may be missing"


def test_what_was_typed_goes_by_the_names_that_travel(known):
    typed = {"in-size": "2.5", "in-a kind": "a", "in-words": ""}
    instance = forms.filled(known, typed)
    assert instance == {"size": 2.5, "a_kind": "a", "words": ""}
    assert forms.row(known, instance) == {"size": 2.5, "a kind": "a", "words": ""}
    missing = forms.filled(known, typed | {"in-size": ""})
    assert missing["size"] == -1e30
    assert forms.row(known, missing)["size"] is None


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        *[({"in-size": text}, 'Input "size" holds ".*"; expected a number') for text in NO_NUMBERS],
        ({"in-a kind": ""}, 'Input "a kind" is empty'),
    ],
)
def test_what_does_not_fit_is_named(known, typed, said):
    with pytest.raises(SchemaError, match=said):
        forms.filled(known, {"in-size": "1", "in-a kind": "a"} | typed)


@pytest.mark.parametrize(
    ("text", "value"),
    [("3.5", 3.5), ("1,234.5", 1234.5), ("-1,234,567", -1234567), ("+7", 7), (".5", 0.5),
     ("5.", 5.0), ("1e5", 1e5), ("-2.5E-3", -0.0025), ("0012", 12)],
)  # fmt: skip
def test_numbers_are_read_as_people_write_them(known, text, value):
    found = forms.filled(known, {"in-size": text, "in-a kind": "a"})["size"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("name", "tensor", "kind"),
    [
        ("x", Tensor("float32", (None,)), "number"), ("x", Tensor("int64", (None,)), "number"),
        ("x", Tensor("string", (None,)), "text"),
        ("image_bytes", Tensor("string", (None,)), "image"),
        ("x", Tensor("float32", (None, 28, 28)), "json"), ("x", Tensor("bool", (None,)), "json"),
        ("x", Tensor("float32", None), "json"),
    ],
)  # fmt: skip
def test_a_signature_gives_fields_by_type_and_shape(name, tensor, kind):
    assert forms._kind(name, tensor) == kind


def test_a_lone_input_travels_without_its_name():
    lone = [forms.ANYTHING | {"name": "image_bytes", "wire": "image_bytes", "kind": "image"}]
    assert forms.filled(lone, {"in-image_bytes": "aGk="}) == {"b64": "aGk="}
    assert forms.fields(lone, {"b64": "aGk="})[0]["value"] == "aGk="
    anything = [forms.ANYTHING]
    assert forms.filled(anything, {"in-instance": "[1, {}]"}) == [1, {}]
    assert forms.fields(anything, [1, 2])[0]["value"] == "[1, 2]"
    assert forms.fields(anything, {})[0]["value"] == ""
    with pytest.raises(SchemaError, match='Input "instance" is not JSON'):
        forms.filled(anything, {"in-instance": "{"})
    for text in ("[NaN]", "-Infinity", '{"x": 1e400}', "9" * 400, "9" * 5000, "[" * 100_000):
        with pytest.raises(SchemaError, match='"instance" holds ".*"; expected JSON with finite'):
            forms.filled(anything, {"in-instance": text})
