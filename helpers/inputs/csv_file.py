"""CSV files as they come: encodings, separators, lines above the header, odd headers."""

import codecs
import csv
import io
import itertools
import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.errors import DataError
from helpers.inputs.columns import Column, Texts, missing, whole

SEPARATORS = ",;\t|"
HEAD_BYTES, RECORDS = 2**16, 20
SCAN_BYTES, MOST_DIGITS = 2**22, 20
CELLS = 600_000  # in a part: what is read at once, besides what is kept of it
READ = {
    "header": 0, "index_col": False, "skipinitialspace": True, "na_values": ["?", "-", "--"],
    "low_memory": False, "on_bad_lines": "error",
}  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """How a file is written: `above` lines stand over its header."""

    encoding: str
    separator: str
    above: int
    names: tuple[str, ...]

    @property
    def comma(self) -> bool:
        """Decimal commas, as semicolons cut the columns."""
        return self.separator == ";"


def layout(path: Path, source: str, notes: list[str]) -> Layout:
    """Look at the head of a file.

    Raises:
        DataError: this is no table; the message says what it looks like.
    """
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
    cut = head.rfind(b"\n") + 1 if len(head) == HEAD_BYTES else 0
    encoding, text = _decode(head[:cut] or head, source)
    found = {separator: _records(text, separator) for separator in SEPARATORS}
    separator = max(SEPARATORS, key=lambda separator: _fit(found[separator]))
    records = found[separator]
    above = _above(records)
    header = records[above]
    if len(header) < 2:
        raise DataError(
            f'{source} has one column ("{header[0][:40]}"); expected a target and one more, '
            "separated by a comma, semicolon, tab or |."
        )
    if said := " ".join(cell for row in records[:above] for cell in row if cell.strip()):
        notes.append(f'above the header, skipped: "{" ".join(said.split())[:80]}"')
    return Layout(encoding, separator, above, _names(header, notes))


def parse(path: Path, source: str, notes: list[str]) -> tuple[dict[str, Column], bool]:
    """Read a CSV file.

    Returns:
        Its columns, of numbers where every value is one; and whether commas are decimal.
    Raises:
        DataError: this is no table; the message says what it looks like.
    """
    known = layout(path, source, notes)
    utf8, zeros = _scan(path, known)
    if not utf8:
        known = replace(known, encoding="cp1252")
    columns = _columns(path, known, source)
    numbers = [name for name, c in columns.items() if zeros and not isinstance(c, Texts)]
    if codes := [name for name in numbers if whole(columns[name])]:
        columns |= _with_zeros(_columns(path, known, source, texts=codes))
    empty = np.logical_and.reduce([missing(column) for column in columns.values()])
    if empty.any():
        columns = {name: column[~empty] for name, column in columns.items()}
    count = len(empty) - np.count_nonzero(empty)
    if count < 2:
        raise DataError(f"{source} has {count} rows below its header; expected 10 or more.")
    return columns, known.comma


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
    rows = max(1000, CELLS // len(known.names))
    try:
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


def _decode(content: bytes, source: str) -> tuple[str, str]:
    """The encoding of a file, and its head as text."""
    if not content.strip():
        raise DataError(f"{source} is empty; expected a CSV file with a header.")
    if b"\0" in content[:4096] or content[:2] == b"PK" or content[:4] == b"%PDF":
        raise DataError(f"{source} is a binary file; expected text. Save it as CSV first.")
    encoding = "utf-8" if _is_utf8(content) else "cp1252"
    text = content.decode("utf-8-sig" if encoding == "utf-8" else encoding, errors="replace")
    start = text.lstrip()[:200].lower()
    if start.startswith(("<", "{", "[{")):
        kind = "JSON" if start[0] in "{[" else "a web page"
        raise DataError(f"{source} is {kind}, not CSV. Give the address of the raw CSV file.")
    return encoding, text


def _is_utf8(content: bytes) -> bool:
    try:  # a character cut in two at the end says nothing
        codecs.getincrementaldecoder("utf-8")().decode(content)
    except UnicodeDecodeError:
        return False
    return True


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


def _with_zeros(columns: dict[str, Column]) -> dict[str, Column]:
    """Those that hold a leading 0."""
    return {
        name: column
        for name, column in columns.items()
        if any(len(level) > 1 and level[0] == "0" for level in column.levels)
    }


def _records(text: str, separator: str) -> list[list[str]]:
    """The first records, as this separator cuts them."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    return list(itertools.islice(reader, RECORDS))


def _fit(records: list[list[str]]) -> tuple[int, int]:
    """In how many records the separator finds as many parts as in the header, and how many."""
    counts = [len(row) for row in records[_above(records) :] if row]
    return (counts.count(counts[0]), counts[0]) if counts and counts[0] > 1 else (0, 0)


def _above(records: list[list[str]]) -> int:
    """How many records stand above the header: empty ones, and a report's title lines.

    A title fills less than half of a row; the header below it names every column in words.
    """
    filled = [sum(bool(cell.strip()) for cell in row) for row in records]
    first = next((i for i, count in enumerate(filled) if count), 0)
    width = Counter(len(row) for row in records if row).most_common(1)[0][0]
    for i in range(first, len(records)):
        if filled[i] and filled[i] >= max(2, width / 2):
            row = records[i]
            words = all(not cell.strip() or re.search(r"[^\W\d_]", cell) for cell in row)
            return i if words and len(row) >= width and filled[i] > width / 2 else first
    return first


def _names(header: list[str], notes: list[str]) -> tuple[str, ...]:
    """The columns' own names; one without a name, or with that of another, gets one."""
    if all(name[:1] == " " for name in header[1:]):  # they belong to the separators
        header = [header[0], *(name.lstrip(" ") for name in header[1:])]
    taken, names, changed = set(header), [], []
    for number, given in enumerate(header, 1):
        name = base = given if given.strip() else f"column_{number}"
        copy = 2
        while name in names or (name != given and name in taken):
            name, copy = f"{base}_{copy}", copy + 1
        names.append(name)
        if name != given:
            changed.append(f'"{given}" is {name}')
    more = f" and {len(changed) - 6} more" if len(changed) > 6 else ""
    if changed:
        notes.append(f"renamed: {', '.join(changed[:6])}{more}")
    return tuple(names)
