"""Columns while a table is read: numbers, or texts as places in a list of those that occur."""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from helpers.errors import DataError, near
from helpers.inputs.wire import WHOLE

SAMPLE = 1000  # distinct values looked at first
GAPS = frozenset({
    "", "#N/A", "#N/A N/A", "#NA", "-", "--", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND",
    "1.#QNAN", "<NA>", "?", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null",
})  # of a table, in training and in new rows: pandas' own, and three signs  # fmt: skip
DIGITS = re.compile(r"\s*-?\d+\s*", re.ASCII)


@dataclass(frozen=True)
class Texts:
    """A column of texts. `places` (rows,): each row's in `levels`, -1 where it has none."""

    places: np.ndarray
    levels: np.ndarray  # (levels,) objects, all str, each once

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, rows) -> "Texts":
        return replace(self, places=self.places[rows])


class Digits(Texts):
    """Whole numbers of which float64 can't hold some, as they are written."""

    def numbers(self) -> np.ndarray:
        """What float64 makes of them. -> (rows,)"""
        return values(self, self.levels.astype("float64"))

    def blurred(self) -> bool:
        """Whether float64 can't tell most of them from each other."""
        return len(set(self.levels.astype("float64"))) < len(self.levels) / 2


Column = np.ndarray | Texts  # numbers are float64, NaN where missing


@dataclass
class Remarks:
    """What is said about a table: `notes`, `units` by column, and the `steps` of dates that order
    the rows."""

    notes: list[str] = field(default_factory=list)
    units: dict[str, str] = field(default_factory=dict)
    steps: dict[str, str] = field(default_factory=dict)


def coded(values: np.ndarray | pd.Series) -> Texts:
    """Texts from objects; what is not a text is written as one."""
    try:
        places, levels = pd.factorize(values)
    except TypeError:  # lists and the like
        places, levels = pd.factorize(pd.Series(values).map(str, na_action="ignore"))
    texts = [as_text(level) if isinstance(level, float) else str(level) for level in levels]
    return merged(Texts(places.astype("int32"), np.array(texts, object)), texts)


def from_frame(frame: pd.DataFrame) -> dict[str, Column]:
    """The columns of a frame, whatever their types."""
    return {str(name): _from_series(column) for name, column in frame.items()}


def _from_series(column: pd.Series) -> Column:
    number = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_complex_dtype(column)
    if not number:
        return coded(column)
    numbers = column.to_numpy("float64", na_value=np.nan)
    exact = pd.api.types.is_integer_dtype(column) and is_large(numbers)
    return digits(coded(column)) if exact else numbers


def is_large(numbers: np.ndarray) -> bool:
    """Whether a number is so large that float64 may have changed it."""
    return bool(len(numbers)) and max(np.fmax.reduce(numbers), -np.fmin.reduce(numbers)) >= WHOLE


def digits(column: Texts) -> Texts:
    """The column as `Digits`, if it holds whole numbers alone, some beyond float64."""
    if not all(level in GAPS or DIGITS.fullmatch(level) for level in column.levels):
        return column
    plain = without_gaps(column)
    large = is_large(plain.levels.astype("float64"))
    return Digits(plain.places, plain.levels) if large else column


def without_gaps(column: Texts, name: str = "", notes: list[str] | None = None) -> Texts:
    """Texts without spaces around them, and missing where they are a word for a gap.

    Args:
        name: of the column.
        notes: gets a line with the words that were found, and how often.
    """
    texts = [level.strip() for level in column.levels]
    words = GAPS.intersection(texts)
    if notes is not None and words - {""}:
        counts = dict.fromkeys(sorted(words - {""}), 0)
        for text, count in zip(texts, counted(column), strict=True):
            if text in counts:
                counts[text] += count
        told = ", ".join(f'"{word}" ({count:,})' for word, count in counts.items())
        notes.append(f"{name}: {told} read as missing")
    if words:
        texts = ["" if text in words else text for text in texts]
    return merged(column, texts)


def written(column: Column) -> np.ndarray:
    """A column as it stands in a frame: float64, or objects with None where missing. -> (rows,)"""
    if isinstance(column, np.ndarray):
        return column
    levels = np.append(column.levels, [None])  # the place -1
    return levels[column.places]


def missing(column: Column) -> np.ndarray:
    """Which rows have no value. -> (rows,) bool"""
    return np.isnan(column) if isinstance(column, np.ndarray) else column.places < 0


def counted(column: Texts) -> np.ndarray:
    """How many rows have each level. -> (levels,)"""
    return np.bincount(column.places + 1, minlength=len(column.levels) + 1)[1:]


def as_numbers(column: Column) -> Column:
    """`Digits` as float64; any other column as it is."""
    return column.numbers() if isinstance(column, Digits) else column


def as_text(number: float) -> str:
    """A number as the name of a class or level: 3.0 is "3"."""
    if abs(number) >= WHOLE:
        return repr(float(number))
    return f"{number:.0f}" if number == round(number) else f"{number:.15g}"


def as_texts(numbers: np.ndarray) -> Texts:
    """Numbers as texts, in the order of the numbers."""
    places, levels = pd.factorize(numbers, sort=True)
    texts = [as_text(level) for level in levels]
    return merged(Texts(places.astype("int32"), np.array(texts, object)), texts)


def in_order(column: Texts) -> Texts:
    """The same texts; of the levels those that occur, sorted."""
    there = np.flatnonzero(counted(column))
    order = there[np.argsort(column.levels[there], kind="stable")]
    moved = np.full(len(column.levels) + 1, -1, "int32")
    moved[order] = np.arange(len(order))
    return Texts(moved[column.places], column.levels[order])


def whole(column: np.ndarray) -> bool:
    """Whether all known values are whole numbers, and some are known."""
    first = column[:SAMPLE]
    if (np.abs(first - np.rint(first)) > 0).any():
        return False
    seen = column[~np.isnan(column)]
    return len(seen) > 0 and bool((seen == np.rint(seen)).all())


def count_levels(column: Column, most: int) -> int:
    """How many different values there are; any number above `most` if there are more than that."""
    if isinstance(column, Texts):
        return np.count_nonzero(counted(column))
    for part in (column[: 2 * most + SAMPLE], column):
        count = len(pd.unique(part[~np.isnan(part)]))
        if count > most:
            break
    return count


def identifier(name: str, start: str) -> str:
    """A name in ASCII letters, digits and `_`."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = re.sub(r"\W+", "_", plain).strip("_")[:60]
    return plain if plain[:1].isalpha() or not start else f"{start}_{plain}".rstrip("_")


def find(name: str, columns: Iterable[str]) -> str:
    """The column a person means: its name in the file, give or take spaces and signs."""
    known = list(columns)
    for alike in (str, str.strip, lambda text: identifier(text, "column")):
        found = [column for column in known if alike(column) == alike(name)]
        if len(found) == 1:
            return found[0]
    raise DataError(f'TARGET="{name}" is not a column.{near(name, known)}')


def merged(column: Texts, texts: list[str]) -> Texts:
    """A column whose levels became these texts: those alike are one, an empty one is missing."""
    if len(set(texts)) == len(texts) and "" not in texts:
        return Texts(column.places, np.array(texts, object))
    place: dict[str, int] = {"": -1}
    for text in texts:
        place.setdefault(text, len(place) - 1)
    moved = np.array([*(place[text] for text in texts), -1], "int32")
    return Texts(moved[column.places], np.array([text for text in place if text], object))


def values(column: Texts, values: np.ndarray) -> np.ndarray:
    """A number a level as a number a row."""
    return np.append(values.astype("float64"), np.nan)[column.places]
