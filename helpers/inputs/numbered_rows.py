"""Rows of a batch prediction job: written as objects with their number, answers put in order.

A job's answers have no order: a row's number goes along beside its columns, and comes back.
"""

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.errors import JobError, SchemaError
from helpers.inputs import new_rows, picture_files, requests
from helpers.inputs.answers import flat_frame
from helpers.inputs.signature import DEFAULT

CHUNK_ROWS = 50_000


def key_for(model) -> str:
    """The name of the rows' numbers: none of the model's own inputs."""
    taken = model.instance_schema.get("required") or model.signatures[DEFAULT].inputs
    return next(key for key in ("row", "_row", "__row") if key not in taken)


def write(session, model, source, key: str, file: Path) -> tuple[pd.Index, Callable]:
    """Write rows as objects with their number.

    Returns:
        Their index, and what makes a result of the answers in the order of the rows.
    """
    schema = model.instance_schema
    names = picture_files.find(source, session) if isinstance(source, str | Path | list) else []
    if names:
        source = [picture_files.read(name, session) for name in names]
    elif requests.is_table(schema) and isinstance(source, str | Path | pd.DataFrame):
        index = _write_frames(model, _frames(source, schema, session), key, file)
        return index, lambda found: requests.table_of_rows(model.prediction_schema, found, index)
    elif isinstance(source, str | Path):
        source = new_rows.read(str(source), schema, model.signatures[DEFAULT], session).rows
    asked = requests.request(model, source)
    _check_finite(asked)
    with open(file, "w") as sink:
        sink.writelines(requests.lines(asked.columns, key, itertools.count()))
    if names:
        index = pd.Index(names, name="file")
        return index, lambda found: flat_frame(asked.gather(found), index)
    return pd.RangeIndex(asked.rows), asked.gather


def read(folder: Path, index: pd.Index, uri: str) -> list:
    """The predictions below a folder, in the order of the rows' numbers.

    Args:
        uri: where the folder came from, for messages.
    Raises:
        JobError: rows failed; which, and the service's words.
    """
    answers, missing = [None] * len(index), np.ones(len(index), bool)
    for path in sorted(folder.glob("prediction.results-*")):
        with open(path) as file:
            while lines := ",".join(itertools.islice(file, CHUNK_ROWS)):
                for found in json.loads(f"[{lines}]"):
                    row = int(found["key"])
                    answers[row], missing[row] = found["prediction"], False
    if missing.any():
        errors = "".join(p.read_text()[:2000] for p in sorted(folder.glob("prediction.errors*")))
        some = ", ".join(map(str, index[missing][:10])) + (", …" if missing.sum() > 10 else "")
        raise JobError(
            f"{missing.sum()} of {len(index)} rows failed: {some}. What the service said:\n"
            f"{errors or 'nothing'}\nThe other rows' results: {uri}"
        )
    return answers


def _check_finite(asked: requests.Request) -> None:
    """Refuse what the service's JSON does not know, though TensorFlow Serving's does."""
    for name, column in asked.columns.items():
        if column.dtype.kind == "f" and not (fits := np.isfinite(column)).all():
            row = fits.reshape(asked.rows, -1).all(axis=1).argmin()
            raise SchemaError(
                f'Input "{name}" holds a gap (NaN) or infinity in row {row}; a batch prediction '
                "job reads JSON, which has neither. Fill it in, or score online (helpers.predict)."
            )


def _write_frames(model, frames: Iterator[pd.DataFrame], key: str, file: Path) -> pd.Index:
    """A table's rows, a part at a time."""
    indexes, number = [], itertools.count()
    with open(file, "w") as sink:
        for frame in frames:
            asked = requests.request(model, frame)
            sink.writelines(requests.lines(asked.columns, key, number))
            indexes.append(frame.index)
    return indexes[0].append(indexes[1:])


def _frames(source, schema: dict, session) -> Iterator[pd.DataFrame]:
    if isinstance(source, pd.DataFrame):
        for start in range(0, max(1, len(source)), CHUNK_ROWS):
            yield source[start : start + CHUNK_ROWS]
        return
    yield from new_rows.read_parts(str(source), schema, session)
