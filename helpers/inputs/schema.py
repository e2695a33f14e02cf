"""What a saved model takes and answers, as OpenAPI words it; stored beside the model as YAML."""

import zlib

import numpy as np
import pandas as pd

from helpers.inputs import wire
from helpers.inputs.answers import answer_names

MISSING = float(np.finfo("float32").min)  # a missing number on the wire, as JSON has no NaN
LEVELS = 50  # a text column with more levels than this has no list of them


def instance(table) -> dict:
    """The shape of one row: its columns in order, with the ranges and levels seen in training.

    Beyond OpenAPI: `example`, a row to try; `x-missing`, what stands for a gap; `x-packed`, the
    signature that takes rows as bytes; `x-built-in`, whether the rows belong to nobody; a column's
    `x-input`, its name in TensorFlow where that can't have the column's own.
    """
    names = wire.input_names(table.features)
    example = table.proposed[list(table.features)].iloc[0]
    return {
        "title": table.name,
        "type": "object",
        "required": list(table.features),
        "properties": {
            name: _column(table, name) | ({} if name == of_tensor else {"x-input": of_tensor})
            for name, of_tensor in names.items()
        },
        "example": {name: None if pd.isna(value) else value for name, value in example.items()},
        "x-missing": {"number": MISSING, "string": ""},
        "x-packed": packed(table),
        "x-built-in": table.built_in,
    }


def prediction(table) -> dict:
    """The shape of one answer: a number in `x-unit`, or a class and one probability a class."""
    about = {"title": table.target, "type": "number", "x-task": table.task, "x-unit": table.unit}
    if table.task == "regression":
        return about
    properties = {table.target: {"type": "string", "enum": list(table.classes)}}
    shares = answer_names(table.target, table.classes)[1:]
    properties |= {name: {"type": "number"} for name in shares}
    return about | {"type": "object", "properties": properties}


def packed(table) -> str:
    """The signature that takes rows as bytes.

    Its name depends on the columns, their kinds and the classes: a client that looked at another
    model's schema is refused, where bytes alone would be misread.
    """
    texts = [name for name in table.features if table.kinds[name] != "number"]
    names = "\n".join([*table.features, "", *table.classes, *(["", *texts] if texts else [])])
    return f"packed_{zlib.crc32(names.encode()):08x}"


def filled(table, frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """Columns as they travel: by their names in TensorFlow, gaps filled with what stands for one.

    Returns:
        name -> (n,) float64, or objects that are all `str`.
    """
    gaps, columns = {"number": MISSING, "text": ""}, {}
    for column, name in wire.input_names(table.features).items():
        kind = table.kinds[column]
        values = frame[column].astype("float64" if kind == "number" else object)
        columns[name] = values.where(values.notna(), gaps[kind]).to_numpy()
    return columns


def _column(table, name: str) -> dict:
    seen = table.train[name].dropna()
    nullable = {"nullable": len(seen) < len(table.train)}
    if table.kinds[name] == "number":
        ends = {"minimum": float(seen.min()), "maximum": float(seen.max())} if len(seen) else {}
        return {"type": "number"} | nullable | ends
    levels = sorted(set(seen))
    return {"type": "string"} | nullable | ({"enum": levels} if len(levels) <= LEVELS else {})
