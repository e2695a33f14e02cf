"""Tables in many CSV files, larger than memory: a sample to look at, all rows streamed to train.

`data.load("gs://bucket/part-*.csv")` reads pieces of the files. `data.rows(table)` reads all of
them once, a part at a time, and deals the rows out to files of float32 on this machine's disk,
which training then reads in a new order every epoch. Which rows test depends on what they hold.
"""

import contextlib
import re
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.cloud import environment, storage
from helpers.cloud.client import Session
from helpers.errors import DataError
from helpers.inputs import csv_file, csv_head, files
from helpers.inputs.column_types import typed
from helpers.inputs.columns import (
    Column,
    Remarks,
    Texts,
    as_texts,
    from_frame,
    missing,
    written,
)

SAMPLE_BYTES, PIECES = 16 * 2**20, 64
PART_BYTES, PARTS = 8 * 2**20, 500  # rows are shuffled within a part, parts among each other
GROUPS = 10  # the first of these tests
CODE = re.compile(r"0\d|-?\d{16}")  # as numbers they would lose a 0, or their last digits


@dataclass(frozen=True)
class Rows:
    """All rows to learn from, on this machine's disk; the files go when this object does.

    `files`: float32, a row's `columns` (features, then target) together; `levels`: column -> the
    texts, or classes, of which a row holds the place, and after the last one any other text.
    """

    files: tuple[str, ...]
    count: int
    columns: tuple[str, ...]
    levels: dict[str, tuple[str, ...]]

    def __len__(self) -> int:
        return self.count


@contextlib.contextmanager
def on_disk(found: dict[str, int], cloud: Session | None, *, sample: bool) -> Iterator[Path]:
    """The one file that was found, or a sample of the many, on this machine's disk."""
    if not sample:
        with files.on_disk(next(iter(found)), cloud) as path:
            yield path
        return
    with tempfile.TemporaryDirectory(prefix="data-") as folder:
        path = Path(folder, "sample")
        path.write_bytes(_sample(found, cloud))
        yield path


def _sample(found: dict[str, int], cloud: Session | None) -> bytes:
    """Pieces from all over the files as one CSV file; all of their rows where that is not much."""
    total, start = sum(found.values()), _piece(next(iter(found)), 0, 2**16, cloud)
    if start[:2] == b"\x1f\x8b":
        raise DataError(f"{next(iter(found))} is compressed; several files are read unpacked only.")
    places, size = np.linspace(0, total, PIECES, endpoint=False), SAMPLE_BYTES // PIECES
    parts, before = [start.partition(b"\n")[0]], 0
    for name, length in found.items():
        inside = [int(at - before) for at in places if before <= at < before + length]
        for at in [0] if total <= SAMPLE_BYTES else inside:
            piece = _piece(name, at, length if total <= SAMPLE_BYTES else size, cloud)
            rows = piece.partition(b"\n")[2]  # without the header, or the rest of a row
            ends = at + len(piece) >= length
            parts.append(rows.rstrip(b"\r\n") if ends else rows.rpartition(b"\n")[0])
        before += length
    return b"\n".join(part for part in parts if part) + b"\n"


def group(frame: pd.DataFrame, seed: int) -> np.ndarray:
    """A number below `GROUPS` for each row by what it holds: rows alike stay together. -> (n,)"""
    texts = frame.select_dtypes(object).fillna("").astype(str)
    content = pd.util.hash_pandas_object(frame.assign(**texts), index=False).to_numpy()
    return pd.util.hash_array(content ^ np.uint64(seed)) % GROUPS


def read(table, *, keep: range, cloud: Session | None = None) -> Rows:
    """Deal out the rows of a table's files whose `group` is one to keep.

    Raises:
        DataError: a file lacks a column.
    """
    known = levels(table, table.train)
    columns, total = (*table.features, table.target), sum(table.files.values())
    draw, count, done, odd = np.random.default_rng(table.seed), 0, 0, 0
    folder = Path(tempfile.mkdtemp(prefix="rows-"))
    with contextlib.ExitStack() as undo:
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        dealt = [folder / str(i) for i in range(min(PARTS, total // PART_BYTES + 1))]
        with contextlib.ExitStack() as stack:
            sinks = [stack.enter_context(open(file, "wb")) for file in dealt]
            said = stack.enter_context(storage.progress("read rows", total))
            for name, size in table.files.items():
                for frame, wrong in _frames(table, name, cloud):
                    frame = frame[np.isin(group(frame, table.seed), keep)]
                    values = matrix(frame, columns, known)
                    place = draw.integers(len(dealt), size=len(values))
                    for i, sink in enumerate(sinks):
                        sink.write(values[place == i].tobytes())
                    count, odd = count + len(values), odd + wrong
                done += size
                said(done)
        rows = Rows(tuple(str(f) for f in dealt if f.stat().st_size), count, columns, known)
        weakref.finalize(rows, undo.pop_all().close)
    if odd:
        print(f"{odd:,} values are not of their column's kind (see the sample): taken as missing")
    return rows


def levels(table, frame: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """The texts of each text column, and the classes of a target that has some."""
    texts = [name for name, kind in table.kinds.items() if kind == "text"]
    found = {name: tuple(sorted(set(frame[name].fillna("")))) for name in texts}
    return found | ({table.target: table.classes} if table.classes else {})


def matrix(frame: pd.DataFrame, columns: tuple[str, ...], levels: dict) -> np.ndarray:
    """Rows as numbers; a text or class as its place in its levels. -> (n, columns) float32"""

    def numbers(column: pd.Series) -> pd.Series:
        if column.name not in levels:
            return column
        place = {level: i for i, level in enumerate(levels[column.name])}
        return column.fillna("").map(place).fillna(len(place))

    return np.column_stack([numbers(frame[name]).to_numpy("float32") for name in columns])


def _frames(table, name: str, cloud: Session | None) -> Iterator[tuple[pd.DataFrame, int]]:
    """A file's rows with a target, a part at a time, columns as the sample's are; and how many
    values could not be."""
    texts = [name for name, kind in table.kinds.items() if kind == "text"]
    texts += [table.target] if table.classes else []
    codes = [c for c in texts if any(map(CODE.match, table.train[c].dropna().unique()))]
    with files.on_disk(name, cloud) as path:
        known = csv_head.layout(path, name, [])
        for part in csv_file.parts(path, known, name, texts={*codes} & {*known.names}):
            raw = from_frame(part.dropna(how="all"))
            columns = typed(raw, Remarks(), comma=known.comma, every_part=True)
            if absent := [c for c in (*table.features, table.target) if c not in columns]:
                raise DataError(
                    f"{name} lacks the columns {absent}; all files must have the same header."
                )
            made = {
                column: _like(columns[column], column in texts, table.classes)
                if column == table.target
                else _like(columns[column], column in texts)
                for column in (*table.features, table.target)
            }
            odd = sum(
                np.count_nonzero(missing(made[c])) - np.count_nonzero(missing(columns[c]))
                for c in made
            )
            there = ~missing(made[table.target])
            yield pd.DataFrame({c: written(v[there]) for c, v in made.items()}), odd


def _like(column: Column, text: bool, classes: tuple[str, ...] = ()) -> Column:
    """A column as texts, of a target its classes alone; or as numbers, missing where it is none."""
    if text:
        column = as_texts(column) if isinstance(column, np.ndarray) else column
        if not classes:
            return column
        place = {name: i for i, name in enumerate(classes)}
        moved = [*(place.get(level, -1) for level in column.levels), -1]
        return Texts(np.array(moved, "int32")[column.places], np.array(classes, object))
    if isinstance(column, np.ndarray):
        return column
    numbers = pd.to_numeric(pd.Series(column.levels, dtype=object), errors="coerce")
    return np.append(numbers.to_numpy("float64"), np.nan)[column.places]


def _piece(name: str, at: int, size: int, cloud: Session | None) -> bytes:
    if name.startswith("gs://"):
        return storage.read_part(cloud or environment.from_environment(), name, at, size)
    with open(name, "rb") as file:
        file.seek(at)
        return file.read(size)
