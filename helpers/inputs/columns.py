"""Columns while a table is read: numbers, or texts as places in a list of those that occur.

What is decided about a column is decided on its distinct values, and on a sample of them where
they are many. Every column is used, dropped or refused, and a line says so and why.
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from helpers.errors import DataError, near

LIMIT = float(np.finfo("float32").max)  # beyond it a number is infinite to a model: as missing
SAMPLE = 1000  # distinct values looked at first
DATE = re.compile(
    r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}.*|\d{1,2}[-/. ](\d{1,2}|[A-Za-z]{3,9})[-/. ]\d{2,4}.*"
)
SYMBOLS = r"[$€£¥%]"
CURRENCY = r"(?:AUD|BRL|CAD|CHF|CNY|CZK|DKK|EUR|GBP|INR|JPY|NOK|PLN|SEK|USD)"
BEFORE = re.compile(rf"(?m)^({CURRENCY})[ \t]*(?=[-+−(\d])")
AFTER = re.compile(
    r"(?m)^([-+−(]*\d(?:[\d.,'’ \u00a0\u202f]*[\d.])?\)?)[ \t]*"
    r"((?:[^\W\d_]|°)[^\s\d()]{0,9}[23]?)$"
)
STEPS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400, "week": 604_800,
         "month": 2_629_746, "quarter": 7_889_238, "year": 31_556_952}  # fmt: skip


@dataclass(frozen=True)
class Texts:
    """A column of texts. `places` (rows,): each row's in `levels`, -1 where it has none."""

    places: np.ndarray
    levels: np.ndarray  # (levels,) objects, all str, each once

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, rows) -> "Texts":
        return Texts(self.places[rows], self.levels)


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
    texts = [level if isinstance(level, str) else str(level) for level in levels]
    return _merged(Texts(places.astype("int32"), np.array(texts, object)), texts)


def from_frame(frame: pd.DataFrame) -> dict[str, Column]:
    """The columns of a frame, whatever their types."""
    return {
        str(name): column.to_numpy("float64", na_value=np.nan)
        if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_complex_dtype(column)
        else coded(column)
        for name, column in frame.items()
    }


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


def as_text(number: float) -> str:
    """A number as the name of a class or level: 3.0 is "3"."""
    return f"{number:.15g}"


def as_texts(numbers: np.ndarray) -> Texts:
    """Numbers as texts, in the order of the numbers."""
    places, levels = pd.factorize(numbers, sort=True)
    return Texts(places.astype("int32"), np.array([as_text(x) for x in levels], object))


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


def typed(
    raw: dict[str, Column], remarks: Remarks, *, comma: bool = False, every_part: bool = False
) -> dict[str, Column]:
    """Columns as numbers, as the parts of their dates, or as texts.

    Args:
        comma: the file cuts its columns by semicolons, so commas are decimal.
        every_part: dates give all their parts, also those that are alike in all rows.
    """
    columns: dict[str, Column] = {}
    for name, column in raw.items():
        for new, values in _typed(name, column, remarks, comma, every_part).items():
            while new in columns or (new != name and new in raw):
                new += "_2"
            columns[new] = values
    return columns


def _typed(
    name: str, column: Column, remarks: Remarks, comma: bool, every_part: bool
) -> dict[str, Column]:
    if isinstance(column, np.ndarray):
        return {name: _finite(column)}
    column = _merged(column, [level.strip() for level in column.levels])
    levels, notes = column.levels, remarks.notes
    if not len(levels):
        return {name: np.full(len(column), np.nan)}
    if len(levels) <= 9 and {level.lower() for level in levels} <= {"true", "false"}:
        return {name: _values(column, np.array([level.lower() == "true" for level in levels]))}
    text = "\n".join(level.replace("\n", "\0") for level in levels)
    if not re.search(r"\d", text):
        return {name: column}
    counts, rows = counted(column), np.count_nonzero(column.places >= 0)
    if example := _leading_zero(text, levels):
        notes.append(f'{name} holds codes such as "{example}": used as categories, not as numbers')
        return {name: column}
    if (read := _amounts(text, levels, comma)) is not None:
        numbers, unit = read
        odd = np.isnan(numbers)
        if counts[odd].sum() <= 0.1 * rows and np.count_nonzero(odd) <= 3:
            if unit := unit or _symbol(levels, counts):
                remarks.units[name] = unit
            first = levels[column.places[np.argmax(column.places >= 0)]]
            said = f'amounts such as "{first}" are read as numbers'
            if odd.any():
                ignored = ", ".join(f'"{level}"' for level in levels[odd])
                said = f"{ignored} ({counts[odd].sum()} rows) taken as missing"
            notes.append(f"{name}: {said}")
            return {name: _values(column, numbers)}
    if (dates := read_dates(levels, counts, rows)) is not None:
        return _parts(name, column, dates, remarks, every_part)
    return {name: column}


def _leading_zero(text: str, levels: np.ndarray) -> str:
    """A code such as 01234 among levels that are whole numbers, or have no digit; or ""."""
    found = re.search(r"(?m)^0\d+$", text)
    bare = found and all(level.isdigit() or not re.search(r"\d", level) for level in levels)
    return found[0] if bare else ""


def _merged(column: Texts, texts: list[str]) -> Texts:
    """A column whose levels became these texts: those alike are one, an empty one is missing."""
    if len(set(texts)) == len(texts) and "" not in texts:
        return Texts(column.places, np.array(texts, object))
    place: dict[str, int] = {"": -1}
    for text in texts:
        place.setdefault(text, len(place) - 1)
    moved = np.array([*(place[text] for text in texts), -1], "int32")
    return Texts(moved[column.places], np.array([text for text in place if text], object))


def _values(column: Texts, values: np.ndarray) -> np.ndarray:
    """A number a level as a number a row."""
    return np.append(values.astype("float64"), np.nan)[column.places]


def _finite(numbers: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        beyond = np.abs(numbers) >= LIMIT
    return np.where(beyond, np.nan, numbers) if beyond.any() else numbers


def _amounts(text: str, levels: np.ndarray, comma: bool) -> tuple[np.ndarray, str] | None:
    """Levels, one a line of `text`, as numbers and their unit; None where few are numbers."""
    if len(levels) > SAMPLE:
        some = levels[:: len(levels) // SAMPLE]
        part = "\n".join(level.replace("\n", "\0") for level in some)
        part, _ = _without_unit(part)
        odd = np.isnan(_numbers(part, True)) & np.isnan(_numbers(part, False))
        if np.count_nonzero(odd) > 3:
            return None
    numbers, unit = _numbers(text, comma), ""
    if np.count_nonzero(np.isnan(numbers)) > 3 or np.isnan(numbers).all():
        bare, unit = _without_unit(text)
        numbers = _numbers(bare, comma) if unit else numbers
    return numbers, unit


def _without_unit(text: str) -> tuple[str, str]:
    """Lines without the one unit they have (`12.5 kg`, `EUR 3`), and that; "" of several."""
    for pattern, place, kept in ((AFTER, 2, r"\1"), (BEFORE, 1, "")):
        units = {match[place].casefold(): match[place] for match in pattern.finditer(text)}
        if len(units) == 1:
            return pattern.sub(kept, text), next(iter(units.values()))
    return text, ""


def _numbers(text: str, comma: bool) -> np.ndarray:
    """Lines as numbers, NaN for those that are none: `$1,200`, `12 %`, `(3.5)`, `1.200,50`."""
    text = re.sub(rf"[ \t]*{SYMBOLS}[ \t]*", "", text).replace("−", "-")
    text = re.sub(r"(?m)^\((.*)\)$", r"-\1", text)
    comma = comma or bool(re.search(r"(?m)^-?(\d+|\d{1,3}(\.\d{3})+),(\d{1,2}|\d{4,})$", text))
    point, thousand = (",", ". ") if comma else (r"\.", ", ")
    grouped = rf"(?m)^-?\d{{1,3}}([{thousand}'’\u00a0\u202f]\d{{3}})+({point}\d+)?$"
    text = re.sub(grouped, lambda match: re.sub(rf"[{thousand}'’\u00a0\u202f]", "", match[0]), text)
    if comma:
        text = text.replace(",", ".")
    lines = np.array(text.split("\n"), object)
    return _finite(np.asarray(pd.to_numeric(lines, errors="coerce"), "float64"))


def _symbol(levels: np.ndarray, counts: np.ndarray) -> str:
    """The commonest of the signs for an amount, or ""."""
    rows: dict[str, int] = {}
    for level, count in zip(levels, counts, strict=True):
        if sign := re.search(SYMBOLS, level):
            rows[sign[0]] = rows.get(sign[0], 0) + count
    return min(rows, key=lambda sign: (-rows[sign], sign), default="")


def read_dates(levels: np.ndarray, counts: np.ndarray, rows: int) -> pd.DatetimeIndex | None:
    """Levels as dates, NaT for those that are none; None when few are dates."""
    if len(levels) > 10 * SAMPLE:
        some = levels[:: len(levels) // SAMPLE]
        if sum(bool(DATE.fullmatch(level)) for level in some) < len(some) / 2:
            return None
    alike = np.array([bool(DATE.fullmatch(level)) for level in levels])
    if counts[alike].sum() <= 0.9 * rows:
        return None
    starts = [int(match[1]) for level in levels if (match := re.match(r"(\d{1,2})\D", level))]
    dotted = any(re.match(r"\d{1,2}\.", level) for level in levels)
    how = {"dayfirst": dotted or max(starts, default=0) > 12, "errors": "coerce", "utc": True}
    form = pd.tseries.api.guess_datetime_format(levels[0], dayfirst=how["dayfirst"])
    dates = pd.to_datetime(levels, format=form or "mixed", **how)
    if form and dates.isna().any():  # other forms among them
        dates = pd.to_datetime(levels, format="mixed", **how)
    return dates if counts[dates.notna()].sum() > 0.9 * rows else None


def _parts(
    name: str, column: Texts, dates: pd.DatetimeIndex, remarks: Remarks, every: bool
) -> dict[str, Column]:
    parts = {part: getattr(dates, part) for part in ("year", "month", "dayofweek", "hour")}
    words = {"dayofweek": "day_of_week"}
    kept = {
        f"{name}_{words.get(part, part)}": _values(column, np.asarray(values, "float64"))
        for part, values in parts.items()
        if every or values.nunique() > 1
    }
    used = ", ".join(kept) or "nothing, all are alike"
    remarks.notes.append(f"{name} holds dates: used as {used}")
    if step := _step(column, dates):
        remarks.steps[name] = step
    return kept


def _step(column: Texts, dates: pd.DatetimeIndex) -> str:
    """How far apart rows are that dates order, one row a date: "an hour"; "" of others."""
    if len(column.levels) != len(column) or len(column) < 3 or dates.isna().any():
        return ""  # levels are as many as rows: all differ, none is missing
    apart = np.diff(dates.as_unit("ns").asi8[column.places] / 1e9)
    apart = apart if apart[0] > 0 else -apart
    middle = float(np.median(apart))
    if apart.min() <= 0 or (np.abs(apart / middle - 1) < 0.1).mean() < 0.7:
        return ""
    name = max((unit for unit in STEPS if STEPS[unit] <= 1.1 * middle), key=STEPS.get, default="")
    count = round(middle / STEPS[name]) if name else 0
    return f"every {count} {name}s" if count > 1 else f"every {name}" if name else "every moment"
