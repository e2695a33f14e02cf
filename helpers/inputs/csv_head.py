"""The head of a CSV file: its encoding, separator, lines above the header, odd headers."""

import codecs
import csv
import io
import itertools
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from helpers.errors import DataError
from helpers.inputs.columns import GAPS

SEPARATORS, LONE = ",;\t|", "\x1f"  # the second of a file of one column: none of its texts has it
HEAD_BYTES, RECORDS, LOOKED_AT = 2**16, 20, 200


@dataclass(frozen=True)
class Layout:
    """How a file is written: `above` lines stand over its header; `worded` columns hold texts."""

    encoding: str
    separator: str
    above: int
    names: tuple[str, ...]
    worded: frozenset[str] = frozenset()

    @property
    def comma(self) -> bool:
        """Decimal commas, as semicolons cut the columns."""
        return self.separator == ";"


def layout(path: Path, source: str, notes: list[str], *, alone: bool = False) -> Layout:
    """Look at the head of a file.

    Args:
        alone: one column is enough; a header without any separator names it.
    Raises:
        DataError: this is no table; the message says what it looks like.
    """
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
    cut = head.rfind(b"\n") + 1 if len(head) == HEAD_BYTES else 0
    encoding, text = _decode(head[:cut] or head, source)
    first = text.lstrip("\r\n").splitlines()[0]
    if alone and all(len(_records(first, separator)[0]) == 1 for separator in SEPARATORS):
        name = _records(first, LONE)[0][0]
        return Layout(encoding, LONE, 0, (name,), frozenset({name}))
    there = [separator for separator in SEPARATORS if separator in text] or SEPARATORS
    found = {separator: _records(text, separator) for separator in there}
    separator = max(there, key=lambda separator: _fit(found[separator]))
    records = found[separator]
    above = _above(records)
    header = records[above]
    if len(header) < 2:
        raise DataError(
            f'{source} has one column ("{header[0][:40]}"); expected two or more, '
            "separated by a comma, semicolon, tab or |."
        )
    if said := " ".join(cell for row in records[:above] for cell in row if cell.strip()):
        notes.append(f'above the header, skipped: "{" ".join(said.split())[:80]}"')
    names = _names(header, notes)
    return Layout(encoding, separator, above, names, _worded(text, separator, above, names))


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


def _records(text: str, separator: str, most: int = RECORDS) -> list[list[str]]:
    """The first records, as this separator cuts them."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    return list(itertools.islice(reader, most))


def _worded(text: str, separator: str, above: int, names: tuple[str, ...]) -> frozenset[str]:
    """The columns that hold what is no number, as far as the head of the file shows it."""
    records = _records(text, separator, LOOKED_AT)[above + 1 :]
    columns = zip(names, itertools.zip_longest(*records, fillvalue=""), strict=False)
    return frozenset(name for name, cells in columns if not _are_numbers(cells))


def _are_numbers(cells: tuple[str, ...]) -> bool:
    """Whether they are numbers, or words for gaps."""
    return _is_number(*cells) or all(cell.strip() in GAPS or _is_number(cell) for cell in cells)


def _is_number(*cells: str) -> bool:
    try:
        for cell in cells:
            float(cell)
    except ValueError:
        return False
    return True


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
