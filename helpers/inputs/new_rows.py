"""A file of rows to be scored: its columns as a model takes them, and the file of answers."""

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from helpers.cloud import storage
from helpers.errors import DataError, NotFoundError, SchemaError
from helpers.inputs import csv_file, files, picture_files, wire
from helpers.inputs.answers import flat_frame
from helpers.inputs.column_types import typed
from helpers.inputs.columns import Remarks, from_frame, identifier, written
from helpers.inputs.requests import is_table
from helpers.inputs.signature import Signature
from helpers.inputs.values import WIDE, by_input, is_matrix
from helpers.inputs.wire import WHOLE

ENDING = "-predictions.csv"


@dataclass(frozen=True)
class NewRows:
    """`rows` as `helpers.predict` takes them; `given` as they are in the file."""

    rows: Any
    given: pd.DataFrame


def read(source: str, instance: dict, signature: Signature, session) -> NewRows:
    """Read a file of rows; columns the model does not take are named and left aside.

    Args:
        source: a path, URL or gs:// address of a CSV or JSON lines file, or of pictures: a folder,
            or with a `*`.
        instance: a table's schema, or {}.
        signature: what the model takes.
    Raises:
        SchemaError: a column the model takes is missing.  NotFoundError: there is no such file.
        DataError: the file is not of these kinds.
    """
    names = picture_files.find(source, session)
    if names:
        above = len(os.path.commonpath([name.rpartition("/")[0] for name in names])) + 1
        given = pd.DataFrame({"file": [name[above:] for name in names]})
        return NewRows([picture_files.read(name, session) for name in names], given)
    if "*" in source or not files.find(source, session):
        raise NotFoundError(f"{source} names no file of rows, and no picture. Correct the path.")
    with files.on_disk(source, session) as path:
        head = path.read_bytes()[:4096].lstrip(b"\xef\xbb\xbf \r\n")
        if head[:1] not in (b"{", b"["):
            given, comma = _csv(path, source)
        else:
            found = _json_lines(path, source)
            if not is_table(instance):
                return _by_input(found, signature)
            given, comma = pd.DataFrame(found), False
    given = given.dropna(how="all").reset_index(drop=True)
    if is_table(instance):
        kinds = {name: about["type"] for name, about in instance["properties"].items()}
    else:
        kinds = {
            name: "whole" if about.dtype in WIDE else "string" if about.dtype == "string"
            else "number" for name, about in signature.inputs.items()
        }  # fmt: skip
        if is_matrix([*given.columns], signature.inputs):
            return NewRows(_only(given, comma, *kinds.values()), given)
    rows = _columns(given, kinds, comma)
    return NewRows(rows if is_table(instance) else {n: rows[n].to_numpy() for n in rows}, given)


def with_answers(found: NewRows, answers) -> pd.DataFrame:
    """The file's columns, then the answers, which get another name where the file has theirs.

    Says which rows have none, as those do whose numbers have gaps.

    Returns:
        All of them; `.attrs["answers"]` names the answers.
    """
    flat = flat_frame(answers, found.given.index)
    flat = flat.rename(columns=lambda n: f"predicted_{n}" if n in found.given else n)
    whole = found.given.join(flat)
    whole.attrs["answers"] = list(flat)
    lacking = whole.index[flat.isna().any(axis=1)]
    if len(lacking):
        some = _list(lacking[:6]) + ", …" * (len(lacking) > 6)
        print(f"{len(lacking):,} of {len(whole):,} rows have a gap, and so no answer: rows {some}")
    return whole


def write(frame: pd.DataFrame, source: str, session) -> str:
    """Write a frame beside the file it came from, and give the address."""
    plain = re.sub(r"/?[^/]*\*.*$", "", source).rstrip("/") if "*" in source else source.rstrip("/")
    folder, _, name = plain.rpartition("/")
    stem = name if "*" in source or source.endswith("/") else re.sub(r"(\.\w+){1,2}$", "", name)
    name = f"{stem or 'rows'}{ENDING}"
    content = frame.to_csv(index=False)
    if source.startswith("gs://"):
        return storage.write_bytes(session, content.encode(), f"{folder}/{name}")
    if re.match("https?://", source):
        path = Path(name)  # nothing can be written beside it
    else:
        local = files.find_files(source)[:1] if "*" not in source else []
        path = (
            local[0].parent if local else Path(folder or ("/" if plain[:1] == "/" else "."))
        ) / name
    path.write_text(content, encoding="utf-8")
    return str(path)


def _csv(path: Path, source: str) -> tuple[pd.DataFrame, bool]:
    """Every cell as it is written, and whether commas are decimal."""
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        header = file.readline().strip()
    if not re.search(f"[{re.escape(csv_file.SEPARATORS)}]", header):  # one column
        return pd.read_csv(path, dtype=str, sep="\0", engine="python", quotechar='"'), False
    known = csv_file.layout(path, source, [])
    parts = csv_file.parts(path, known, source, texts=known.names)
    return pd.concat(parts, ignore_index=True), known.comma


def _json_lines(path: Path, source: str) -> list:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        rows = [json.loads(line) for line in lines if line.strip()]
    except ValueError as error:
        raise DataError(
            f"{source} is not lines of JSON ({error}). Write one object a line, or a CSV file."
        ) from error
    whole = len(rows) == 1 and isinstance(rows[0], list) and isinstance(rows[0][:1], list)
    return rows[0] if whole and rows[0] and isinstance(rows[0][0], dict) else rows


def _by_input(found: list, signature: Signature) -> NewRows:
    """Lines of JSON for a model that is none of a table: bare instances, or objects by input."""
    if not all(isinstance(row, dict) and set(row) != {"b64"} for row in found):
        shown = [json.dumps(row)[:80] for row in found]
        return NewRows(by_input(found), pd.DataFrame({"row": shown}))
    names = list(dict.fromkeys(name for row in found for name in row))
    plain = [{n: v if not isinstance(v, list | dict) else json.dumps(v) for n, v in row.items()}
             for row in found]  # fmt: skip
    wanted = signature.inputs
    places = {sent: name for name, sent in wire.input_names(names).items()}
    _tell(names, {places.get(name) for name in wanted}, [n for n in wanted if n not in places])
    for number, row in enumerate(found):
        if missing := [places[name] for name in wanted if places[name] not in row]:
            raise SchemaError(f"Row {number} of the file lacks {_list(missing)}. Add it.")
    rows = {name: by_input([row[places[name]] for row in found]) for name in wanted}
    return NewRows(rows, pd.DataFrame(plain, columns=names))


def _columns(given: pd.DataFrame, kinds: dict[str, str], comma: bool) -> pd.DataFrame:
    """The columns that a model takes: texts as they are written, numbers as training reads them."""
    read = typed(from_frame(given.astype(object)), Remarks(), comma=comma, every_part=True)
    places = {name: name for name in given} | {
        identifier(str(name), "column"): name for name in reversed(list(given)) if name not in kinds
    }
    found, used = {}, set()
    for name, kind in kinds.items():
        place = places.get(name)
        if kind == "string" and place is not None:
            texts = given[place]
            found[name] = texts.where(texts.isna(), texts.astype(str).str.strip())
        elif place in read or name in read:
            found[name] = pd.Series(written(read[place if place in read else name]))
            if place is not None:
                found[name] = _exact(name, found[name], given[place], kind)
        else:
            continue
        used |= {place} if place is not None else {n for n in given if name.startswith(f"{n}_")}
    _tell(given, used, [name for name in kinds if name not in found])
    return pd.DataFrame(found)


def _exact(name: str, column: pd.Series, texts: pd.Series, kind: str) -> pd.Series:
    """Numbers as training reads them, but codes such as 007 as numbers, and what is to be `whole`
    in full where a float64 rounds it."""
    if kind == "number" and column.dtype != object:
        return column
    plain = pd.to_numeric(texts, errors="coerce")
    if plain.notna().all() and (column.dtype == object or plain.dtype.kind in "iu"):
        return plain
    if kind == "whole" and column.dtype != object and (beyond := column.abs() >= WHOLE).any():
        row = beyond.argmax()
        raise SchemaError(
            f'Column "{name}" holds {texts[row]!r} in row {row}; expected a whole number, written '
            "in digits alone."
        )
    return column


def _tell(given: Iterable, used: set, missing: list[str]) -> None:
    """Name what is left aside; refuse a file that lacks something."""
    if aside := [name for name in given if name not in used]:
        print(f"Left aside, as the model does not take them: {_list(aside)}")
    if missing:
        raise SchemaError(
            f"The file lacks what the model takes: {_list(missing)}. It has {_list(given)}."
        )


def _only(given: pd.DataFrame, comma: bool, kind: str):
    """A model's only input: a column of texts, or all columns as a matrix of numbers."""
    if kind == "string":
        lengths = {name: given[name].fillna("").astype(str).str.len().mean() for name in given}
        name = max(lengths, key=lengths.get)  # as the prototype takes the texts of its file
        _tell(given, {name}, [])
        return given[name].fillna("").astype(str).tolist()
    numbers = _columns(given, dict.fromkeys(given, kind), comma)
    return numbers.to_numpy(object if kind == "whole" else None)


def _list(names: Iterable) -> str:
    return ", ".join(map(str, names))
