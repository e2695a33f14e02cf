"""What a column of texts is: numbers with signs and units, dates, or texts.

It is decided on its distinct values, and on a sample of them where they are many. Every column is
used, dropped or refused, and a line says so and why.
"""

import re

import numpy as np
import pandas as pd

from helpers.inputs.columns import (
    SAMPLE,
    Column,
    Digits,
    Remarks,
    counted,
    digits,
    values,
    without_gaps,
)
from helpers.inputs.dates import date_parts, read_dates

LIMIT = float(np.finfo("float32").max)  # beyond it a number is infinite to a model: as missing
SYMBOLS = r"[$€£¥%]"
CURRENCY = r"(?:AUD|BRL|CAD|CHF|CNY|CZK|DKK|EUR|GBP|INR|JPY|NOK|PLN|SEK|USD)"
BEFORE = re.compile(rf"(?m)^({CURRENCY})[ \t]*(?=[-+−(\d])")
AFTER = re.compile(
    r"(?m)^([-+−(]*\d(?:[\d.,'’ \u00a0\u202f]*[\d.])?\)?)[ \t]*"
    r"((?:[^\W\d_]|°)[^\s\d()]{0,9}[23]?)$"
)


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
        for new, made in _typed(name, column, remarks, comma, every_part).items():
            while new in columns or (new != name and new in raw):
                new += "_2"
            columns[new] = made
    return columns


def _typed(
    name: str, column: Column, remarks: Remarks, comma: bool, every_part: bool
) -> dict[str, Column]:
    if isinstance(column, np.ndarray):
        return {name: _finite(column)}
    notes = remarks.notes
    column = digits(without_gaps(column, name, notes))
    if isinstance(column, Digits):
        return {name: column}
    levels = column.levels
    if not len(levels):
        return {name: np.full(len(column), np.nan)}
    if len(levels) <= 9 and {level.lower() for level in levels} <= {"true", "false"}:
        return {name: values(column, np.array([level.lower() == "true" for level in levels]))}
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
            return {name: values(column, numbers)}
    if (dates := read_dates(levels, counts, rows)) is not None:
        return date_parts(name, column, dates, remarks, every_part)
    return {name: column}


def _leading_zero(text: str, levels: np.ndarray) -> str:
    """A code such as 01234 among levels that are whole numbers, or have no digit; or ""."""
    found = re.search(r"(?m)^0\d+$", text)
    bare = found and all(level.isdigit() or not re.search(r"\d", level) for level in levels)
    return found[0] if bare else ""


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
