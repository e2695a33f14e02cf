"""Tables in many CSV files, larger than memory: a sample to look at, all rows streamed to train.

`data.load("gs://bucket/part-*.csv")` reads pieces of the files. `data.rows(table)` reads all of
them once, a part at a time, and deals the rows out to files of float32 on this machine's disk,
which training then reads in a new order every epoch. Which rows test depends on what they hold.
"""

import contextlib
import fnmatch
import glob
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.cloud import environment, folders, storage
from helpers.cloud.client import Session
from helpers.errors import DataError, NotFoundError
from helpers.inputs import csv_file

SAMPLE_BYTES, PIECES = 16 * 2**20, 64
PART_BYTES, PARTS = 8 * 2**20, 500  # rows are shuffled within a part, parts among each other
GROUPS = 10  # the first of these tests


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


def find(pattern: str, cloud: Session | None) -> dict[str, int]:
    """The files that a pattern such as `gs://bucket/part-*.csv` names, with their sizes in bytes.

    Raises:
        NotFoundError: none.
    """
    if pattern.startswith("gs://"):
        listed = storage.sizes(cloud or environment.from_environment(), pattern.partition("*")[0])
        found = {uri: size for uri, size in listed.items() if fnmatch.fnmatchcase(uri, pattern)}
    else:
        around = (Path.cwd(), folders.project_root())
        paths = next((p for folder in around if (p := glob.glob(str(folder / pattern)))), [])
        found = {path: Path(path).stat().st_size for path in sorted(paths)}
    if not found:
        raise NotFoundError(f'DATA="{pattern}" matches no file; look at the part before the *.')
    return found


def sample(files: dict[str, int], cloud: Session | None) -> bytes:
    """Pieces from all over the files as one CSV file; all of their rows where that is not much."""
    total, start = sum(files.values()), _piece(next(iter(files)), 0, 2**16, cloud)
    if start[:2] == b"\x1f\x8b":
        raise DataError(f"{next(iter(files))} is compressed; several files are read unpacked only.")
    places, size = np.linspace(0, total, PIECES, endpoint=False), SAMPLE_BYTES // PIECES
    parts, before = [start.partition(b"\n")[0]], 0
    for name, length in files.items():
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
        files = [folder / str(i) for i in range(min(PARTS, total // PART_BYTES + 1))]
        with contextlib.ExitStack() as stack:
            sinks = [stack.enter_context(open(file, "wb")) for file in files]
            said = stack.enter_context(storage.progress("read rows", total))
            for name, size in table.files.items():
                with _local(name, folder, cloud) as path:
                    for chunk in csv_file.chunks(path, name):
                        frame, wrong = _like(table, chunk, name)
                        frame = frame[np.isin(group(frame, table.seed), keep)]
                        values = matrix(frame, columns, known)
                        place = draw.integers(len(files), size=len(values))
                        for i, sink in enumerate(sinks):
                            sink.write(values[place == i].tobytes())
                        count, odd = count + len(values), odd + wrong
                done += size
                said(done)
        rows = Rows(tuple(str(f) for f in files if f.stat().st_size), count, columns, known)
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


def _like(table, chunk: pd.DataFrame, name: str) -> tuple[pd.DataFrame, int]:
    """A chunk's rows with a target, columns as the sample's are; how many values could not be."""
    missing = [column for column in (*table.features, table.target) if column not in chunk]
    if missing:
        raise DataError(f"{name} lacks the columns {missing}; all files must have the same header.")
    made, odd = {}, 0
    for column in (*table.features, table.target):
        values, number = chunk[column], pd.api.types.is_numeric_dtype(chunk[column])
        classes = table.classes if column == table.target else ()
        if table.kinds.get(column) == "text" or classes:
            values = values.map("{:g}".format, na_action="ignore") if number else values
            values = values.astype(object).where(values.notna(), None)
            known = values.where(values.isin(classes), None) if classes else values
        else:
            known = pd.to_numeric(values, errors="coerce").astype("float64")
        odd += int(known.isna().sum() - values.isna().sum())
        made[column] = known
    return pd.DataFrame(made).dropna(subset=table.target), odd


def _piece(name: str, at: int, size: int, cloud: Session | None) -> bytes:
    if name.startswith("gs://"):
        return storage.read_part(cloud or environment.from_environment(), name, at, size)
    with open(name, "rb") as file:
        file.seek(at)
        return file.read(size)


@contextlib.contextmanager
def _local(name: str, folder: Path, cloud: Session | None) -> Iterator[Path]:
    if not name.startswith("gs://"):
        yield Path(name)
        return
    path = folder / "download"
    yield storage.download_file(cloud or environment.from_environment(), name, path)
    path.unlink()
