"""Texts with labels: what is found, counted, left out and refused. No TensorFlow."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

mpl.use("Agg")

from helpers import baselines, texts
from helpers.errors import DataError, NotFoundError
from helpers.inputs.answers import answer_names
from helpers.looks import words


def mails(count: int = 40) -> pd.DataFrame:
    draw = np.random.default_rng(3)
    spam = draw.integers(0, 2, count).astype(bool)
    said = [
        f"{'win a prize, click now' if bad else 'see you at lunch'}\nnumber {n}"
        for n, bad in enumerate(spam)
    ]
    return pd.DataFrame(
        {"id": range(count), "body": said, "kind": np.where(spam, "spam", "ham"), "from": "x"}
    )


@pytest.fixture
def source(tmp_path) -> Path:
    mails().to_csv(tmp_path / "mails.csv", index=False)
    return tmp_path / "mails.csv"


def test_the_reviews_follow_their_rule():
    found = texts.load()
    assert (found.target, found.classes) == ("verdict", ("bad", "good"))
    assert texts.reviews().equals(texts.reviews())
    rows, praise = texts.reviews(), {"great", "lovely", "solid", "bright"} | {
        "reliable", "quick", "perfect", "handy"}  # fmt: skip
    blame = {"poor", "ugly", "flimsy", "dim", "broken", "slow", "awful", "useless"}

    def verdict(text: str) -> str:
        half = texts.split(text.partition(" but ")[2] or text)  # what comes last decides
        word = next(place for place, word in enumerate(half) if word in praise | blame)
        turned = "not" in half[max(0, word - 2) : word]
        return "good" if (half[word] in praise) != turned else "bad"

    right = (rows["text"].map(verdict) == rows["verdict"]).mean()
    assert 0.94 < right < 0.98  # the noise that is written down


def test_columns_are_found_and_can_be_named(source):
    found = texts.load(str(source), target="kind")
    assert "number" in found.train["text"].iloc[0]  # also a line break in a text
    assert len(found.train) + len(found.test) == 40
    assert found.classes == ("ham", "spam")
    named = texts.load(str(source), text="body", target="kind", seed=4)
    assert set(named.test["text"]) != set(found.test["text"])
    with pytest.raises(DataError, match='TEXT="bodi" is not a column. Did you mean "body"'):
        texts.load(str(source), text="bodi")
    with pytest.raises(DataError, match='TARGET="kid" is not a column. Did you mean'):
        texts.load(str(source), target="kid")


def test_rows_that_can_t_be_used_are_counted(tmp_path, capsys):
    frame = mails()
    frame.loc[:2, "kind"] = None
    frame.loc[3, "body"] = " "
    frame.loc[5:7, "body"] = "the same again"
    frame.to_csv(tmp_path / "m.csv", index=False)
    found = texts.load(str(tmp_path / "m.csv"), target="kind")
    said = capsys.readouterr().out
    assert "rows without a text or a kind are left out: 4" in said
    assert "rows that repeat a text are left out: 2" in said
    assert len(found.train) + len(found.test) == 34


def test_a_trial_does_not_see_the_test_texts(source, monkeypatch):
    found = texts.load(str(source), target="kind")
    monkeypatch.setenv("CLOUD_ML_TRIAL_ID", "2")
    trial = texts.load(str(source), target="kind")
    assert set(found.test["text"]).isdisjoint([*trial.train["text"], *trial.test["text"]])


def test_labels_in_any_script(tmp_path):
    names = ["кот", "собака", "猫 1", "犬 1", "schön", "schon gut"]
    frame = mails(60).assign(kind=names * 10)
    frame[["body", "kind"]].to_csv(tmp_path / "m.csv", index=False)
    found = texts.load(str(tmp_path / "m.csv"))
    assert found.classes == tuple(sorted(names))
    columns = answer_names("kind", names)
    assert len(set(columns)) == 7
    assert all(column.isidentifier() and column.isascii() for column in columns)
    assert columns[-2:] == ["probability_schon", "probability_schon_gut"]


def test_labels_that_are_numbers(tmp_path):
    frame = mails().assign(kind=lambda f: (f["kind"] == "spam").astype(int))
    frame[["body", "kind"]].to_json(tmp_path / "m.jsonl", orient="records", lines=True)
    assert texts.load(str(tmp_path / "m.jsonl")).classes == ("0", "1")


def test_every_text_is_one_and_labels_may_lack(tmp_path, capsys):
    """A word for a gap is a text like others; large labels keep their digits."""
    frame = mails().assign(kind=[2**53 + n % 4 for n in range(40)]).astype({"kind": object})
    frame.loc[3, "body"], frame.loc[4, "kind"] = "null", "NA"
    frame[["id", "body", "kind"]].to_csv(tmp_path / "m.csv", index=False)
    found = texts.load(str(tmp_path / "m.csv"))
    assert found.classes == tuple(str(2**53 + n) for n in range(4))
    assert "null" in {*found.train["text"], *found.test["text"]}
    assert len(found.train) + len(found.test) == 39
    assert "rows without a text or a kind are left out: 1" in capsys.readouterr().out
    frame["kind"] = [*mails()["kind"][:38], "NA", "?"]
    large = frame["id"].map(lambda n: 10**17 + n)
    frame.assign(id=large, body=frame["body"].str[:3] + large.astype(str).str[-2:]).to_csv(
        tmp_path / "m.csv", index=False
    )
    found = texts.load(str(tmp_path / "m.csv"), target="kind")
    assert set(found.notes) >= {
        'texts are in "body", labels in "kind"',  # shorter than the numbers
        'kind: "?" (1), "NA" (1) read as missing',
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: f.assign(kind="spam")[["body", "kind"]], 'has the kind "spam"; expected two'),
        (lambda f: f.assign(kind=f["body"] + "!")[["body", "kind"]], "at most 100 are classes|has"),
        (lambda f: f[["id"]].assign(other=2.5), "has no texts in any column"),
        (lambda f: f[["body", "kind"]][:6], "has 6 different texts; expected 10"),
        (lambda f: f.assign(kind=["a-b", "a b"] * 20)[["body", "kind"]], "differ in signs only"),
    ],
)
def test_what_is_no_classification_is_refused(tmp_path, change, said):
    change(mails(120) if "100" in said else mails()).to_csv(tmp_path / "m.csv", index=False)
    with pytest.raises(DataError, match=said):
        texts.load(str(tmp_path / "m.csv"))


def test_a_file_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFoundError, match='DATA="gone.csv": no such file'):
        texts.load("gone.csv")


def test_words_are_split_as_keras_does():
    said = ["It's GREAT, ÄÖ!", "great\n(very) great_"]
    assert texts.split(said[0]) == ["its", "great", "ÄÖ"]
    assert texts.words(said, 2) == ["great", "its"]
    assert texts.length(said, 2) == 2
    layers = pytest.importorskip("keras.layers", exc_type=ImportError)
    adapted = layers.TextVectorization()
    adapted.adapt(said)
    assert set(adapted.get_vocabulary()[2:]) == set(texts.words(said, 99))
    # each letter and sign up to the ideographs, and beyond, between two letters
    points = [*range(1, 0x3100), *range(0xF900, 0x10400), 0x1F600]
    odd = [f"x{chr(point)}Y z" for point in points]
    keras_words = layers.TextVectorization(vocabulary=texts.words(odd, 99_999))
    assert (keras_words(odd).numpy() != 1).all()  # 1: unknown
    lengths = (keras_words(odd).numpy() != 0).sum(axis=1)
    assert lengths.tolist() == [len(texts.split(text)) for text in odd]


def test_the_rivals_see_the_difference(source):
    found = baselines.score(texts.load(str(source), target="kind"))
    assert found["linear"]["accuracy"] == 1
    assert found["trivial"]["accuracy"] < 0.7


def test_the_picture_of_words():
    rows = [("a", "win", 0.5, 9), ("a", "now", 0.1, 5), ("b", "lunch", 0.3, 8), ("b", "x", -0.1, 4),
            ("猫", "$猫$", 0.2, 6)]  # fmt: skip
    figure = words.pushing(pd.DataFrame(rows, columns=["class", "word", "push", "texts"]))
    assert [axes.get_title() for axes in figure.axes] == ["towards a", "towards b", "towards □", ""]
    figure.canvas.draw()  # without a warning
    labels = [label.get_text() for label in figure.axes[1].get_yticklabels()]
    assert labels == ["lunch"]
    mpl.pyplot.close("all")
