"""What a file is by its first bytes, and its columns: CSV, JSON lines, Parquet, Excel.

A spreadsheet is written as CSV and read like one, because people put the same things into both.
"""

import json
import tempfile
import zipfile
from pathlib import Path

import pandas as pd

from helpers.cloud.client import Session
from helpers.errors import DataError
from helpers.inputs import csv_file, files
from helpers.inputs.columns import Column, from_frame, is_large

HEAD_BYTES = 2**16


def read(source: str, session: Session | None, notes: list[str]) -> tuple[dict[str, Column], bool]:
    """`parse` of the file that a path, URL or address names."""
    found = files.find(source, session)
    with files.on_disk(next(iter(found)), session) as path:
        return parse(path, source, notes)


def parse(path: Path, source: str, notes: list[str]) -> tuple[dict[str, Column], bool]:
    """The columns of a file, as they are written; and whether commas are decimal.

    Raises:
        DataError: this is no table, or a package that reads such files is not installed.
    """
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
    if head[:4] == b"PAR1":
        return _of_frame(_read(pd.read_parquet, path, source, "pyarrow"), source), False
    if head[:4] == b"PK\x03\x04" and _is_excel(path):
        return _excel(path, source, notes)
    if _is_json_lines(head):
        how = {"lines": True, "dtype": False, "convert_dates": False}
        return _of_frame(_exact(_read(pd.read_json, path, source, "", **how), path), source), False
    return csv_file.parse(path, source, notes)


def _read(read, path: Path, source: str, package: str, **how) -> pd.DataFrame:
    try:
        return read(path, **how)
    except ImportError as error:
        raise DataError(
            f"Reading {source} needs {package}, which is not installed: pip install {package}. "
            "Or save it as CSV."
        ) from error
    except Exception as error:  # each reader has errors of its own
        said = str(error).strip().rstrip(".")
        raise DataError(f"{source} can't be read: {said}. Save it as CSV.") from error


def _exact(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Large whole numbers as they are written, where pandas made float64 of them for a gap."""
    floats = frame.select_dtypes("float64")
    if large := [name for name, column in floats.items() if is_large(column.to_numpy())]:
        with open(path, encoding="utf-8-sig") as file:
            rows = [json.loads(line) for line in file if line.strip()]
        for name in large:
            values = [row.get(name) for row in rows]
            if all(value is None or isinstance(value, int) for value in values):
                frame[name] = pd.Series(values, dtype=object)
    return frame


def _of_frame(frame: pd.DataFrame, source: str) -> dict[str, Column]:
    if list(frame.index.names) != [None]:  # an index that has a name is a column
        frame = frame.reset_index()
    frame = frame.dropna(how="all")
    if len(frame) < 2:
        raise DataError(f"{source} has {len(frame)} rows; expected 10 or more.")
    return from_frame(frame)


def _excel(path: Path, source: str, notes: list[str]) -> tuple[dict[str, Column], bool]:
    """The first sheet that holds something."""
    how = {"sheet_name": None, "header": None, "dtype": object, "engine": "openpyxl"}
    sheets = _read(pd.read_excel, path, source, "openpyxl", **how)
    full = {name: sheet for name, sheet in sheets.items() if not sheet.empty}
    if not full:
        raise DataError(f"{source} is an empty spreadsheet; expected a header and rows.")
    if len(full) > 1:
        first, *others = (f'"{name}"' for name in full)
        notes.append(f"of {len(full)} sheets {first} is read, not {', '.join(others[:4])}")
    with tempfile.TemporaryDirectory(prefix="data-") as folder:
        plain = Path(folder, "sheet.csv")
        next(iter(full.values())).to_csv(plain, header=False, index=False)
        return csv_file.parse(plain, source, notes)


def _is_excel(path: Path) -> bool:
    return zipfile.is_zipfile(path) and "xl/workbook.xml" in zipfile.ZipFile(path).namelist()


def _is_json_lines(head: bytes) -> bool:
    """Its first two lines are objects, each by itself."""
    lines = head.removeprefix(b"\xef\xbb\xbf").strip().split(b"\n", 2)
    if lines[0][:1] != b"{":
        return False
    try:
        found = [json.loads(line) for line in lines[:2]]
    except ValueError:
        return False
    return len(found) == 2 and all(isinstance(one, dict) for one in found)
