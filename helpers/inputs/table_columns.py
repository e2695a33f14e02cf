"""A table's frame against its schema: each column as the model takes it, or why it can't be."""

import datetime

import numpy as np
import pandas as pd

from helpers.errors import SchemaError, near
from helpers.inputs.columns import GAPS, as_texts, written
from helpers.inputs.values import check_names

MOST = float(np.finfo("float32").max)
DATES = (datetime.date, datetime.timedelta, np.datetime64, np.timedelta64)
UNREAL = (bytes, complex, np.complexfloating, *DATES)
PLAIN = {"string", "floating", "integer", "mixed-integer-float", "boolean", "empty"}  # to pandas


def check(schema: dict, frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """Check a frame against a table's schema; each column as the model takes it, gaps filled in.

    Returns:
        column -> (n,) float64, or objects that are all `str`.
    Raises:
        SchemaError: names the column, the row and what was expected.
    """
    if len(frame) == 0:
        raise SchemaError("The frame has no rows; expected at least one to score.")
    check_names(frame)
    wanted = schema["required"]
    missing = [name for name in wanted if name not in frame.columns]
    extra = [str(name) for name in frame.columns if name not in wanted]
    if missing:
        hint = near(missing[0], extra) if extra else ""
        raise SchemaError(
            f'Column "{missing[0]}" is missing.{hint} The model\'s inputs are {", ".join(wanted)}.'
        )
    if extra:
        raise SchemaError(
            f'Column "{extra[0]}" is not an input of the model; drop it. '
            f"The model's inputs are {', '.join(wanted)}."
        )
    return {name: _checked(name, schema, frame[name]) for name in wanted}


def _checked(name: str, schema: dict, column: pd.Series) -> np.ndarray:
    about, sentinel = schema["properties"][name], schema["x-missing"]
    if about["type"] == "number" and getattr(column.dtype, "kind", "") in "fiu":
        numbers = column.to_numpy("float64", na_value=np.nan)
        if -MOST <= numbers.min() <= numbers.max() <= MOST:
            return numbers  # none is NaN; of a million rows every copy is felt
    if column.dtype == "category":
        column = column.astype(object)
    objects = column.dtype == object
    whole = objects and pd.api.types.infer_dtype(column, skipna=False) == "string"
    if whole and about["type"] == "string" and GAPS.isdisjoint(column.to_numpy()):
        return column.to_numpy()  # as it is: what follows takes ten times as long
    if about["type"] == "string":
        values, empty = _texts(column)
        bad = _are(bytes, column) if objects else np.zeros(len(column), bool)
    else:
        values, empty = _numbers(column), column.isna().to_numpy()
        odd = np.flatnonzero(np.isnan(values) & ~empty)
        empty[odd] = [isinstance(one, str) and one.strip() in GAPS for one in column.iloc[odd]]
        bad = ~empty & ~(np.abs(values) <= MOST)
    if empty.any() and not about["nullable"]:
        row = column.index[empty.argmax()]
        raise SchemaError(
            f'Column "{name}" is empty (NaN) in row {row}; the model was trained on data without '
            "gaps there. Fill it in, or drop the row."
        )
    if bad.any():
        row, kind = bad.argmax(), "text" if about["type"] == "string" else "a number"
        value = column.iloc[row]
        value = repr(value) if isinstance(value, str | bytes) else value
        raise SchemaError(
            f'Column "{name}" holds {value} in row {column.index[row]}; expected {kind}.'
        )
    return np.where(empty, sentinel[about["type"]], values)


def _texts(column: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Texts, and which are missing, also by a word for a gap; a column's 3.0 is "3", as pandas has
    it beside a gap."""
    if getattr(column.dtype, "kind", "") == "f":
        texts = written(as_texts(column.to_numpy("float64", na_value=np.nan)))
    elif pd.api.types.infer_dtype(column, skipna=True) == "string":
        texts = column.to_numpy(object)
    else:
        texts = column.astype("string").to_numpy(object)
    words = np.fromiter(map(GAPS.__contains__, texts), bool, len(texts))
    return texts, pd.isna(texts) | words


def _numbers(column: pd.Series) -> np.ndarray:
    """Numbers, also those written as texts; NaN for what is none. -> (n,) float64"""
    if column.dtype.kind in "Mmc":  # of dates and durations pandas would make nanoseconds
        return np.full(len(column), np.nan)
    if column.dtype == object and (unreal := _are(UNREAL, column)).any():
        column = column.mask(unreal)
    try:
        return pd.to_numeric(column, errors="coerce").to_numpy("float64", na_value=np.nan)
    except OverflowError:  # whole numbers beyond any float
        return _numbers(column.mask([isinstance(v, int) and abs(v) > MOST for v in column]))
    except TypeError:  # periods, intervals
        return np.full(len(column), np.nan)


def _are(kinds, column: pd.Series) -> np.ndarray:
    """Which objects are of these kinds; of common columns none is looked at."""
    if pd.api.types.infer_dtype(column, skipna=True) in PLAIN:
        return np.zeros(len(column), bool)
    return np.array([isinstance(value, kinds) for value in column], bool)
