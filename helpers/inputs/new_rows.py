"""A file of rows to be scored: its columns as a model takes them, and the file of answers."""

import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from helpers.cloud import storage
from helpers.errors import NotFoundError, SchemaError
from helpers.inputs import files, picture_files, row_files, wire
from helpers.inputs.answers import flat_frame
from helpers.inputs.column_types import typed
from helpers.inputs.columns import (
    GAPS,
    Column,
    Remarks,
    as_numbers,
    coded,
    identifier,
    without_gaps,
    written,
)
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
    table, kinds = is_table(instance), _kinds(instance, signature)
    with files.on_disk(_file(source, session), session) as path:
        if row_files.is_json(path):
            found = list(itertools.chain.from_iterable(row_files.json_lines(path, source)))
            if not table:
                return _by_input(found, signature)
            given, comma = row_files.objects(found, source, 0), False
        else:
            parts, comma = row_files.csv_parts(path, source, alone=len(kinds) == 1)
            given = pd.concat(parts, ignore_index=True)
    if not table and is_matrix([*given.columns], signature.inputs):
        return NewRows(_only(given, comma, *kinds.values()), given)
    rows, _ = _columns(given, kinds, comma, gaps=table)
    return NewRows(rows if table else {n: rows[n].to_numpy() for n in rows}, given)


def read_parts(source: str, instance: dict, session) -> Iterator[pd.DataFrame]:
    """The rows of a table's file as `read` has them, a part at a time, numbered through.

    Raises:
        As `read`.
    """
    kinds, taken = _kinds(instance, None), []
    with files.on_disk(_file(source, session), session) as path:
        if row_files.is_json(path):
            numbers, comma = itertools.count(step=row_files.CHUNK_ROWS), False
            lines = row_files.json_lines(path, source)
            parts = (row_files.objects(rows, source, next(numbers)) for rows in lines)
        else:
            parts, comma = row_files.csv_parts(path, source, alone=len(kinds) == 1, kinds=kinds)
        for part in parts:
            given = part.reindex(columns=taken) if taken else part
            rows, taken = _columns(given, kinds, comma, gaps=True)
            yield rows


def _file(source: str, session) -> str:
    found = {} if "*" in source else files.find(source, session)
    if not found:
        raise NotFoundError(f"{source} names no file of rows, and no picture. Correct the path.")
    return next(iter(found))


def _kinds(instance: dict, signature: Signature | None) -> dict[str, str]:
    """What a model takes: "number", "whole" or "string", by column or input."""
    if is_table(instance):
        return {name: about["type"] for name, about in instance["properties"].items()}
    return {
        name: "whole" if about.dtype in WIDE else "string" if about.dtype == "string"
        else "number" for name, about in signature.inputs.items()
    }  # fmt: skip


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
    gap = {name: "" if about.dtype == "string" else None for name, about in wanted.items()}
    cells = {name: [row[places[name]] for row in found] for name in wanted}
    rows = {n: by_input([gap[n] if v is None else v for v in cells[n]]) for n in wanted}
    return NewRows(rows, pd.DataFrame(plain, columns=names, dtype=object))


def _columns(
    given: pd.DataFrame, kinds: dict[str, str], comma: bool, *, gaps: bool
) -> tuple[pd.DataFrame, list[str]]:
    """The columns that a model takes: texts as they are written, numbers as training reads them.

    Args:
        gaps: a table's texts may be missing; of other models every text is one.
    Returns:
        These columns, and which of the file they come from.
    """
    raw = {str(name): _plain(given[name]) for name in given if kinds.get(name) != "string"}
    read = typed(raw, Remarks(), comma=comma, every_part=True)
    places = {name: name for name in given} | {
        identifier(str(name), "column"): name for name in reversed(list(given)) if name not in kinds
    }
    found, used = {}, set()
    for name, kind in kinds.items():
        place = places.get(name)
        if kind == "string" and place is not None:
            texts = coded(given[place].to_numpy(object))
            found[name] = written(without_gaps(texts)) if gaps else given[place].fillna("").map(str)
        elif place in read or name in read:
            column = written(as_numbers(read[place if place in read else name]))
            found[name] = column if kind != "whole" else _whole(name, column, given[place])
        else:
            continue
        used |= {place} if place is not None else {n for n in given if name.startswith(f"{n}_")}
    _tell(given, used, [name for name in kinds if name not in found])
    return pd.DataFrame(found, given.index), [name for name in given if name in used]


def _plain(column: pd.Series) -> Column:
    """Numbers, if all are written plainly: what most columns are, and the rest takes long."""
    if pd.api.types.is_numeric_dtype(column):
        return column.to_numpy("float64")
    texts = column.mask(column.isin(GAPS))
    numbers = pd.to_numeric(texts, errors="coerce")
    return numbers.to_numpy("float64") if (numbers.isna() == texts.isna()).all() else coded(column)


def _whole(name: str, numbers: np.ndarray, texts: pd.Series):
    """Numbers to their last digit, where a float64 rounds them."""
    plain = pd.to_numeric(texts, errors="coerce")
    if plain.dtype.kind in "iu":
        return plain
    if numbers.dtype != object and (beyond := np.abs(numbers) >= WHOLE).any():
        row = beyond.argmax()
        raise SchemaError(
            f'Column "{name}" holds {texts[row]!r} in row {row}; expected a whole number, written '
            "in digits alone."
        )
    return numbers


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
    rows, _ = _columns(given, dict.fromkeys(given, kind), comma, gaps=False)
    return rows.to_numpy(object if kind == "whole" else None)


def _list(names: Iterable) -> str:
    return ", ".join(map(str, names))
