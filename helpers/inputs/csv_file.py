"""CSV files as columns: numbers where every value is one, else texts; a part at a time."""

import codecs
import io
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.errors import DataError
from helpers.inputs import csv_head
from helpers.inputs.columns import GAPS, Column, Digits, Texts, digits, is_large, missing, whole
from helpers.inputs.csv_head import LONE, Layout

SCAN_BYTES, MOST_DIGITS = 2**22, 20
CELLS, LEAST = 600_000, 1000  # in a part, and its rows: what is read at once, besides what is kept
READ = {
    "header": 0, "index_col": False, "skipinitialspace": True, "keep_default_na": False,
    "low_memory": False, "on_bad_lines": "error",
}  # fmt: skip


def parse(path: Path, source: str, notes: list[str]) -> tuple[dict[str, Column], bool]:
    """Read a CSV file.

    Returns:
        Its columns, of numbers where every value is one; and whether commas are decimal.
    Raises:
        DataError: this is no table; the message says what it looks like.
    """
    known, zeros = layout(path, source, notes)
    columns = _columns(path, known, source)
    numbers = [name for name, c in columns.items() if zeros and not isinstance(c, Texts)]
    codes = [name for name in numbers if whole(columns[name])]
    codes += [name for name, c in columns.items() if name not in codes and _large(c)]
    if codes:
        columns |= _codes(_columns(path, known, source, texts=codes))
    empty = np.logical_and.reduce([missing(column) for column in columns.values()])
    if empty.any():
        columns = {name: column[~empty] for name, column in columns.items()}
    count = len(empty) - np.count_nonzero(empty)
    if count < 2:
        raise DataError(f"{source} has {count} rows below its header; expected 10 or more.")
    return columns, known.comma


def layout(path: Path, source: str, notes: list[str], *, alone=False) -> tuple[Layout, bool]:
    """How a file is written, also far down; and whether it may hold codes such as 01234."""
    known = csv_head.layout(path, source, notes, alone=alone)
    utf8, zeros = _scan(path, known)
    return known if utf8 else replace(known, encoding="cp1252"), zeros


def parts(
    path: Path, known: Layout, source: str, *, texts: Collection[str] = (), only: bool = False
) -> Iterator[pd.DataFrame]:
    """Read a CSV file a part at a time.

    Args:
        texts: the columns to read as they are written, such as codes with leading zeros.
        only: read no others.
    """
    how = READ | {"sep": known.separator, "names": list(known.names), "skiprows": known.above}
    how |= {"encoding": known.encoding, "encoding_errors": "replace"}
    how |= {"usecols": list(texts) if only else None}
    how |= {"dtype": dict.fromkeys(texts, str) if texts else None}
    # a gap's word in a column of texts is told later, by its name
    how |= {"na_values": {n: [""] if n in {*texts} | known.worded else GAPS for n in known.names}}
    rows = max(LEAST, CELLS // len(known.names))
    try:
        if known.separator == LONE:  # a blank line is a row, but for those at the end
            text = path.read_text(encoding=known.encoding, errors="replace")
            text = text.strip("\ufeff\r\n")
            yield pd.read_csv(io.StringIO(text), skip_blank_lines=False, **how)
            return
        if path.stat().st_size < 2 * CELLS:  # a cell takes two bytes and more
            yield pd.read_csv(path, **how)
            return
        with pd.read_csv(path, chunksize=rows, **how) as found:
            yield from found
    except (ValueError, pd.errors.ParserError) as error:
        raise DataError(f"{source} is not a CSV file: {error}") from error


def _columns(
    path: Path, known: Layout, source: str, *, texts: Collection[str] = ()
) -> dict[str, Column]:
    """The columns of a file, or only those to be read as texts."""
    names = list(texts) or known.names
    kinds: dict[str, set[str]] = {name: set() for name in names}
    found: dict[str, list] = {name: [] for name in names}
    places: dict[str, dict[str, int]] = {name: {} for name in names}
    for part in parts(path, known, source, texts=texts, only=bool(texts)):
        for name, column in part.items():
            kind, values = _part(column, places[name])
            kinds[name] |= {kind} - {""}
            found[name].append(values)
    columns: dict[str, Column] = {}
    for name in names:
        if len(kinds[name]) < 2:
            texts_of = kinds[name] == {"text"}
            columns[name] = _joined(found.pop(name), places[name] if texts_of else None)
    if mixed := [name for name in names if name not in columns]:  # numbers here, texts there
        columns |= _columns(path, known, source, texts=mixed)
    return {name: columns[name] for name in names}


def _part(column: pd.Series, places: dict[str, int]) -> tuple[str, np.ndarray]:
    """What a part of a column holds, and its values or their places; new texts get new places."""
    if pd.api.types.is_numeric_dtype(column):
        numbers = column.to_numpy("float64")
        if column.dtype == bool:
            return "truth", numbers
        return "" if np.isnan(numbers).all() else "number", numbers
    codes, levels = pd.factorize(column.to_numpy())
    if len(levels) and not isinstance(levels[0], str):  # true and false, with gaps
        return "truth", np.append(levels.astype("float64"), np.nan)[codes]
    moved = [places.setdefault(level, len(places)) for level in levels]
    return "text" if moved else "", np.array([*moved, -1], "int32")[codes]


def _joined(found: list[np.ndarray], places: dict[str, int] | None) -> Column:
    values = np.concatenate(found) if len(found) > 1 else found[0]
    if places is None:
        return values.astype("float64", copy=False)
    if values.dtype != "int32":  # a part without any value
        values = np.concatenate([
            part if part.dtype == "int32" else np.full(len(part), -1, "int32") for part in found
        ])  # fmt: skip
    return Texts(values, np.array(list(places), object))


def _scan(path: Path, known: Layout) -> tuple[bool, bool]:
    """Whether all of a file is UTF-8, and whether a cell of it is a whole number with a leading 0.

    Without a look at every byte, 01234 would be a number before anyone asked.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    utf8, zeros, before = known.encoding == "utf-8", False, b"\n"
    ends = np.zeros(256, bool)
    ends[list(b'\r\n"' + known.separator.encode())] = True
    with open(path, "rb") as file:
        while (block := file.read(SCAN_BYTES)) and (utf8 or not zeros):
            if utf8:
                try:
                    decoder.decode(block)
                except UnicodeDecodeError:
                    utf8 = False
            if not zeros:
                content = np.frombuffer(before + block + b"\n", "uint8")
                at = np.flatnonzero(content == ord("0"))
                at = at[ends[content[at - 1]] & (content[at + 1] - ord("0") < 10)]
                for _ in range(MOST_DIGITS):  # all that follows are digits, up to an end
                    if not len(at):
                        break
                    at = at + 1
                    zeros = zeros or bool(ends[content[at]].any())
                    at = at[content[at] - ord("0") < 10]
                before = block[-1:]
    return utf8, zeros


def _large(column: Column) -> bool:
    return isinstance(column, np.ndarray) and is_large(column) and whole(column)


def _codes(columns: dict[str, Texts]) -> dict[str, Texts]:
    """Those that hold a leading 0, or more digits than a number can."""
    read = {name: digits(column) for name, column in columns.items()}
    return {
        name: column
        for name, column in read.items()
        if isinstance(column, Digits)
        or any(len(level) > 1 and level[0] == "0" for level in column.levels)
    }
