"""Texts with a label each: found in a file, cleaned, split.

`DATA` is `reviews` (generated, see reviews.py), or a file with a column of texts and one of labels.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.cloud.client import Session
from helpers.errors import DataError, near
from helpers.inputs import columns, formats, held_back
from helpers.inputs import examples as held_out
from helpers.inputs.answers import check_class_names
from helpers.inputs.reviews import reviews

BUILT_IN = ("reviews",)
CLASSES, FEWEST = 100, 10
PUNCTUATION = re.compile(r"[!\"#$%&()*+,\-./:;<=>?@\[\\\]^_`{|}~']")  # as Keras strips it


@dataclass(frozen=True)
class Texts:
    """Texts to learn from and texts held back; what a plot of a table needs is named alike.

    `train`, `test`: one row a text: `text`, and its class under the label's own name, `target`.
    """

    name: str
    train: pd.DataFrame
    test: pd.DataFrame
    classes: tuple[str, ...]
    target: str
    notes: tuple[str, ...]
    built_in: bool
    task: str = "multiclass"
    unit: str = ""
    noise_mae: float | None = None
    features: tuple[str, ...] = ("text",)
    kinds: dict[str, str] = field(default_factory=lambda: {"text": "text"})
    called: str = "texts"


def load(
    source: str = "reviews",
    *,
    text: str = "",
    target: str = "",
    seed: int = 0,
    session: Session | None = None,
) -> Texts:
    """Read texts and their labels, and hold back a quarter of each class.

    Rows without a text or label, and those that repeat a text, are counted and left out: a text
    that is both learned and tested would flatter the model.

    Args:
        source: "reviews", or the path, URL or gs:// address of a file as `data.load` takes it.
        text: the column of texts; "" takes the one with the longest.
        target: the column of labels; "" takes the last of the others.
        seed: which texts are held back; classes keep their shares.
        session: who reads a gs:// address; default: the cloud this process runs in.
    Raises:
        DataError: there are no texts or no two classes; the message says what was found.
        NotFoundError: there is no such file.
    """
    notes: list[str] = []
    if source in BUILT_IN:
        target, frame = "verdict", reviews()
    else:
        target, frame = _read(source, text, target, session, notes)
    count = len(frame)
    frame = frame[(frame["text"] != "") & (frame[target] != "")]
    if len(frame) < count:
        notes.append(f"rows without a text or a {target} are left out: {count - len(frame):,}")
    count, frame = len(frame), frame.drop_duplicates("text")
    if len(frame) < count:
        notes.append(f"rows that repeat a text are left out: {count - len(frame):,}")
    if len(frame) < FEWEST:
        raise DataError(f"{source} has {len(frame)} different texts; expected {FEWEST} or more.")
    classes = tuple(sorted(set(frame[target])))
    _check(classes, source, target)
    train, test = held_back.by_class(frame, target, seed, notes)
    for note in notes:
        print(note)
    name = source if source in BUILT_IN else Path(source).name.partition(".")[0]
    return Texts(name, train, test, classes, target, tuple(notes), source in BUILT_IN)


def describe(texts: Texts) -> pd.DataFrame:
    """One line a class, no texts: how many to learn from and to test, and how long they are."""
    lines = {}
    for name in texts.classes:
        learned = texts.train[texts.train[texts.target] == name]
        length = learned["text"].map(lambda text: len(split(text)))
        lines[name] = {
            "to learn from": len(learned),
            "to test": int((texts.test[texts.target] == name).sum()),
            "words": f"{length.min()} to {length.max()}, mean {length.mean():.0f}",
        }
    return pd.DataFrame(lines).T.rename_axis(texts.target)


def split(text: str) -> list[str]:
    """A text's words as Keras's TextVectorization splits it: lower case of ASCII, no signs.

    Spaces are those of ASCII, which bytes are split at: words that a no-break or an ideographic
    space joins are one to Keras.
    """
    plain = PUNCTUATION.sub("", text).encode()
    return [word.decode() for word in plain.lower().split()]


def words(texts: Iterable[str], most: int) -> list[str]:
    """The words of these texts, the most frequent first; `most` of them."""
    counts = Counter(word for text in texts for word in split(text))
    return sorted(counts, key=lambda word: (-counts[word], word))[:most]


def length(texts: Iterable[str], most: int) -> int:
    """How many words a model should read: as many as 19 of 20 texts have, `most` at most."""
    return max(1, min(most, int(np.quantile([len(split(text)) for text in texts], 0.95))))


def examples(texts: Texts, most: int = 1000) -> tuple[np.ndarray, np.ndarray] | None:
    """Held-out texts and their classes, to travel with the model; 0 gives None."""
    if not most or texts.test.empty:
        return None
    chosen = texts.test.iloc[held_out.choose(len(texts.test), most)]
    return chosen["text"].to_numpy(object), chosen[texts.target].to_numpy(object)


def _read(
    source: str, text: str, target: str, session: Session | None, notes: list[str]
) -> tuple[str, pd.DataFrame]:
    """The label's name, and rows of `text` and label; "" where one is missing."""
    raw, _ = formats.read(source, session, notes)
    raw = {
        name: columns.digits(column) if isinstance(column, columns.Texts) else column
        for name, column in raw.items()
    }
    numbers = (np.ndarray, columns.Digits)
    worded = {name: column for name, column in raw.items() if not isinstance(column, numbers)}
    if text and text not in raw:
        raise DataError(f'TEXT="{text}" is not a column.{near(text, raw)}')
    if not worded or (text and text not in worded):
        raise DataError(
            f"{source} has no texts in {text or 'any column'}; expected a column of words."
        )

    def longest(name: str) -> float:
        column = worded[name]
        return float(np.mean([len(column.levels[place]) for place in column.places if place >= 0]))

    text = text or max(worded, key=longest)
    others = [name for name in raw if name != text]
    if not others:
        raise DataError(f'{source} has no column besides "{text}"; expected one of labels.')
    target = columns.find(target, others) if target else others[-1]
    label = raw[target]
    label = (
        columns.as_texts(label)
        if isinstance(label, np.ndarray)
        else columns.without_gaps(label, target, notes)
    )
    notes.append(f'texts are in "{text}", labels in "{target}"')
    values = {"text": columns.written(raw[text]), target: columns.written(label)}
    if target == "text":
        raise DataError('A column of labels can\'t be called "text"; rename it.')
    frame = pd.DataFrame(values).fillna("")
    return target, frame.map(str.strip)


def _check(classes: tuple[str, ...], source: str, target: str) -> None:
    if len(classes) < 2:
        raise DataError(
            f'Every text of {source} has the {target} "{classes[0]}"; expected two or more.'
        )
    if len(classes) > CLASSES:
        raise DataError(
            f"{target} has {len(classes):,} different values; at most {CLASSES} are classes. "
            "Choose another TARGET, or group its values."
        )
    check_class_names(classes)
