"""What a person gives a model as its inputs: arrays, texts, pictures, frames, dicts; checked."""

import datetime
import numbers
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.errors import SchemaError, near
from helpers.inputs import wire
from helpers.inputs.signature import Signature, Tensor

NUMBERS = (numbers.Real, np.bool_, Decimal)
OF_NUMBERS = {"integer", "floating", "mixed-integer-float", "boolean", "empty"}  # to pandas
WIDE = ("int64", "uint64")  # float64 does not hold all of their numbers
WORDS = {"U": "text", "S": "text", "M": "dates", "m": "durations", "c": "complex numbers"}
OBJECTS = {
    (str, bytes): "text",
    (datetime.date, np.datetime64): "dates",
    (datetime.timedelta, np.timedelta64): "durations",
    (complex, np.complexfloating): "complex numbers",
    (list, tuple, np.ndarray): "lists that differ in length",
}
WHAT = "an array, a list of texts or bytes, or a dict of these by the input's name"


def fit(values, signature: Signature) -> dict[str, np.ndarray]:
    """Check values against what a model takes; nothing is sent before this.

    Args:
        values: what `model.predict` takes: an array or list, for several inputs a dict of them by
            name; a frame whose columns are the inputs, or the columns of one matrix. For an input
            named `…_bytes` also paths of files, whose content is sent; a `Path` is one anywhere.
    Returns:
        name -> (n, …) of the input's own type; texts and bytes as objects.
    Raises:
        SchemaError: names, shapes, types or numbers of rows do not fit.
    """
    for name, about in (signature.inputs | signature.outputs).items():
        if about.dtype.startswith("complex"):
            raise SchemaError(
                f'"{name}" is {about}; JSON has no complex numbers. Export the model with '
                "helpers.export(model, serve=…): a function of real and imaginary parts."
            )
    if hasattr(values, "as_numpy_iterator"):
        raise SchemaError(
            "The values are a tf.data.Dataset; expected arrays. Of batches (x, y), "
            "np.concatenate([x for x, y in dataset.as_numpy_iterator()]) makes one."
        )
    wanted = signature.inputs
    named = _by_name(values, wanted)
    unknown = [str(name) for name in named if name not in wanted]
    missing = [name for name in wanted if name not in named]
    if missing:
        hint = near(missing[0], unknown) if unknown else ""
        raise SchemaError(f'Input "{missing[0]}" is missing.{hint} The model takes {signature}.')
    if unknown:
        raise SchemaError(
            f'Input "{unknown[0]}" is not an input of the model; leave it out. '
            f"It takes {signature}."
        )
    arrays = {name: _array(name, named[name], about) for name, about in wanted.items()}
    rows = {name: len(a) for name, a in arrays.items() if a.ndim}
    if len(set(rows.values())) > 1:
        raise SchemaError(f"Inputs differ in their number of rows: {rows}. Give each the same.")
    if 0 in rows.values():
        raise SchemaError("There are no rows; expected at least one to score.")
    return arrays


def check_names(frame: pd.DataFrame) -> None:
    """Refuse a frame of which two columns have one name."""
    if not frame.columns.is_unique:
        name = frame.columns[frame.columns.duplicated()][0]
        count = int((frame.columns == name).sum())
        raise SchemaError(f'The frame has {count} columns "{name}"; expected one. Drop the others.')


def by_input(rows: list):
    """Instances of the row form as one array, or of objects as one array by input."""
    if rows and isinstance(rows[0], dict) and set(rows[0]) != {"b64"}:
        return {name: wire.array([row[name] for row in rows]) for name in rows[0]}
    return wire.array(rows)


def is_matrix(columns: list, wanted: dict[str, Tensor]) -> bool:
    """Whether columns are those of one matrix, which is all that a model takes."""
    if len(wanted) != 1:
        return False
    ((name, about),) = wanted.items()
    several = len(columns) > 1 and bool(about.shape) and _fits((1, len(columns)), about.shape)
    return several or name not in columns


def _by_name(values, wanted: dict[str, Tensor]) -> dict:
    if isinstance(values, pd.DataFrame):
        if is_matrix([*values.columns], wanted):
            (about,) = wanted.values()
            mixed = about.dtype in WIDE and values.dtypes.nunique() > 1
            values = values.to_numpy(object if mixed else None)
        else:
            check_names(values)
            values = {n: values[n].to_numpy() for n in values.columns}
    if isinstance(values, dict):
        sent = wire.input_names(map(str, values))  # "unit price" is unit_price to TensorFlow
        renamed = {sent[str(name)]: value for name, value in values.items()}
        return renamed if set(renamed) == set(wanted) else values
    if len(wanted) == 1:
        return {next(iter(wanted)): values}
    names = ", ".join(wanted)
    raise SchemaError(
        f"The model takes {len(wanted)} inputs ({names}); found {type(values).__name__}. "
        "Give a dict of them by name."
    )


def _array(name: str, values, about: Tensor) -> np.ndarray:
    if isinstance(values, str | bytes | Path) and about.shape != ():
        raise SchemaError(f'Input "{name}" is one {type(values).__name__}; put it into a list.')
    if isinstance(values, pd.Series | pd.Index):
        values = values.to_numpy()
    if about.dtype == "string":
        return _shaped(name, _texts(name, values), about)
    try:
        found = np.asarray(values)
    except ValueError as error:
        raise SchemaError(
            f'Input "{name}" is no array: its rows differ in length. Expected {about}; make them '
            "alike, as keras.utils.pad_sequences does."
        ) from error
    if found.dtype.kind == "f" and about.dtype in WIDE and not hasattr(values, "__array__"):
        found = np.asarray(values, object)  # whole numbers became floats, to hold all of them
    word = WORDS.get(found.dtype.kind, found.dtype.name)
    if found.dtype == object:  # pandas keeps numbers like this too
        found, word = _of_objects(found, about)
    return _shaped(name, _typed(name, found, about, word), about)


def _of_objects(found: np.ndarray, about: Tensor) -> tuple[np.ndarray, str]:
    """Numbers, for whole ones as the objects they are, NaN where there is none; or a word for what
    they are instead."""
    gaps = pd.isna(found)
    if pd.api.types.infer_dtype(found.ravel(), skipna=True) not in OF_NUMBERS:
        for value in found[~gaps].flat:
            if not isinstance(value, NUMBERS):
                return found, _word(value)
    found = np.where(gaps, np.nan, found)
    if "int" in about.dtype:
        return found, "numbers"
    try:
        return found.astype("float64"), "numbers"
    except OverflowError:
        return found, "whole numbers beyond float64"


def _word(value) -> str:
    known = (word for kinds, word in OBJECTS.items() if isinstance(value, kinds))
    return next(known, f"a {type(value).__name__}")


def _typed(name: str, found: np.ndarray, about: Tensor, word: str) -> np.ndarray:
    """Numbers as the input's own type, if none changes its value but by rounding."""
    plain = "float32" if about.dtype == "bfloat16" else about.dtype
    kind = np.dtype(plain) if hasattr(np, plain.rstrip("_")) or plain == "bool" else None
    if kind is None or not (found.dtype.kind in "biuf" or word == "numbers"):
        raise SchemaError(
            f'Input "{name}" is {word}; expected {about}. Convert it first, or give {WHAT}.'
        )
    if found.dtype == kind:
        return found
    if kind.kind in "iub" and found.dtype.kind != "b":
        low, high = (0, 1) if kind.kind == "b" else (np.iinfo(kind).min, np.iinfo(kind).max)
        flat = found.ravel()
        bad = _not_whole(flat, low, high)
        if bad.any():
            raise SchemaError(
                f'Input "{name}" holds {flat[bad][0]}; expected {about}: whole numbers from {low} '
                f"to {high}."
            )
    try:
        with np.errstate(over="raise"):
            return found.astype(kind)
    except FloatingPointError as error:
        most = float(np.finfo(kind).max)
        bad = found[np.isfinite(found) & (np.abs(found.astype("float64")) > most)][0]
        raise SchemaError(
            f'Input "{name}" holds {bad}; expected {about}: numbers from {-most:.6g} to {most:.6g}.'
        ) from error


def _not_whole(found: np.ndarray, low: int, high: int) -> np.ndarray:
    """Where numbers (n,), of any type or objects, are not whole or not from low to high."""
    if found.dtype.kind in "iu" and found.size and found.min() >= low and found.max() <= high:
        return np.zeros(found.shape, bool)
    if found.dtype.kind == "f":
        found = found.astype("float64", copy=False)
    with np.errstate(invalid="ignore"):
        # A float64 is never 2**63 - 1, but takes it for 2**63.
        bad = ~((found >= low) & (found < high + 1)).astype(bool)
        if found.dtype.kind in "fO":
            bad[~bad] = found[~bad] % 1 != 0
    return bad


def _texts(name: str, values) -> np.ndarray:
    """Texts and bytes as objects; for an input of files' bytes, or a Path, the file's content."""
    found = values if isinstance(values, np.ndarray) else _nested(values)
    flat = found.ravel().tolist()
    for place, value in enumerate(flat):
        if isinstance(value, Path) or (isinstance(value, str) and name.endswith("_bytes")):
            if not Path(value).is_file():
                raise SchemaError(
                    f'Input "{name}", row {place}: {value} is no file here; expected bytes, or the '
                    "path of a file."
                )
            flat[place] = Path(value).read_bytes()
        elif not isinstance(value, str | bytes):
            raise SchemaError(
                f'Input "{name}" holds {value!r} in row {place}; expected text or bytes.'
            )
    texts = np.empty(len(flat), object)
    texts[:] = flat
    return texts.reshape(found.shape)


def _nested(values) -> np.ndarray:
    if not hasattr(values, "__iter__"):
        values = np.asarray(values, object)
    elif not hasattr(values, "__array__"):
        values = list(values)
    return np.asarray(values, object)


def _shaped(name: str, found: np.ndarray, about: Tensor) -> np.ndarray:
    """Keras takes (n,) for (n, 1) and the other way round; so does this."""
    wanted = about.shape
    if wanted is None or _fits(found.shape, wanted):
        return found
    if found.shape[-1:] == (1,) and _fits(found.shape[:-1], wanted):
        return found[..., 0]
    if wanted[-1:] == (1,) and _fits((*found.shape, 1), wanted):
        return found[..., None]
    shape = " × ".join(map(str, found.shape)) or "one value"
    one = " It looks like one row: give array[None]." if _fits((1, *found.shape), wanted) else ""
    raise SchemaError(f'Input "{name}" has the shape {shape}; expected {about}.{one}')


def _fits(shape: tuple, wanted: tuple) -> bool:
    return len(shape) == len(wanted) and all(
        size in (None, given) for given, size in zip(shape, wanted, strict=True)
    )
