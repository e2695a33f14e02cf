"""A file of new rows, CSV or lines of JSON, as it is written: a part at a time."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from helpers.errors import DataError
from helpers.inputs import csv_file
from helpers.inputs.columns import identifier

CHUNK_ROWS = 50_000  # lines of JSON read at once


def is_json(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(4096).lstrip(b"\xef\xbb\xbf \r\n")[:1] in (b"{", b"[")


def csv_parts(
    path: Path, source: str, *, alone: bool, kinds: dict[str, str] | None = None
) -> tuple[Iterator[pd.DataFrame], bool]:
    """Parts, and whether commas are decimal.

    Args:
        kinds: of what the model takes; only texts are needed as they are written.
    """
    known, _ = csv_file.layout(path, source, [], alone=alone)
    texts = [
        name
        for name in known.names
        if kinds is None or "string" in (kinds.get(name), kinds.get(identifier(name, "column")))
    ]
    return csv_file.parts(path, known, source, texts=texts), known.comma


def json_lines(path: Path, source: str) -> Iterator[list]:
    """Rows, some at a time: an object or array a line, or a list of objects in the only line."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = (line for line in file if line.strip())
            first = True
            while rows := [json.loads(line) for line in itertools.islice(lines, CHUNK_ROWS)]:
                only = rows[0] if first and len(rows) == 1 else None
                listed = isinstance(only, list) and only and isinstance(only[0], dict)
                yield only if listed else rows
                first = False
    except ValueError as error:
        why = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else error
        raise _no_lines(source, why) from error


def objects(rows: list, source: str, start: int) -> pd.DataFrame:
    """Objects as a frame of what they hold, numbered from `start`."""
    for number, row in enumerate(rows, start):
        if not isinstance(row, dict):
            raise _no_lines(source, f"row {number} is no object")
    return pd.DataFrame(rows, range(start, start + len(rows)), dtype=object)


def _no_lines(source: str, why) -> DataError:
    return DataError(
        f"{source} is not lines of JSON ({why}). Write one object a line, or a CSV file."
    )
