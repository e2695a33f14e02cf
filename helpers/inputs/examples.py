"""Held-out rows with their truth, which travel with a model: `examples.jsonl`.

One line a row, `{"instance": …, "truth": …}`; the instance in the endpoint's row form.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from helpers.errors import DataError, SettingError
from helpers.inputs import wire
from helpers.inputs.signature import Signature
from helpers.inputs.values import by_input, fit

MOST = 1000
NAME = "examples.jsonl"
TRUTHS = {"integer", "floating", "mixed-integer-float", "boolean", "string", "bytes", "empty"}


@dataclass(frozen=True)
class Examples:
    """`rows` as `helpers.predict` takes them, and what is true of each."""

    rows: Any
    truth: Any

    def __len__(self) -> int:
        truth = next(iter(self.truth.values())) if isinstance(self.truth, dict) else self.truth
        return len(truth)

    def first(self):
        """The first row alone, or None."""
        if not len(self):
            return None
        if isinstance(self.rows, dict):
            return {name: values[:1] for name, values in self.rows.items()}
        return self.rows[:1]


NONE = Examples((), ())


def beside(folder):
    """Where what travels with a model's folder lies: beside one named `model`, in any other."""
    return (folder.parent if folder.absolute().name == "model" else folder) / NAME


def write(folder, lines: list[str]) -> None:
    """Lines as the file beside a model's folder; of none there is no file."""
    kept = beside(folder)
    kept.unlink(missing_ok=True)
    if lines:
        kept.write_text("".join(lines), encoding="utf-8")


def choose(rows: int, most: int = MOST) -> np.ndarray:
    """Which of so many rows to keep: evenly spaced, as files may be in order of their classes."""
    return np.unique(np.linspace(0, rows - 1, min(rows, most)).astype(int))


def lines(rows: dict[str, np.ndarray], truth, *, bare: bool) -> Iterator[str]:
    """Rows (n, …) by input and their truth as lines of the file.

    Args:
        bare: the model has one input, whose name the row form leaves out.
    """
    columns = {name: wire.plain(values) for name, values in rows.items()}
    instances = _rows(columns)
    truths = _rows(truth) if isinstance(truth, dict) else wire.plain(np.asarray(truth))
    for instance, known in zip(instances, truths, strict=True):
        value = next(iter(instance.values())) if bare else instance
        yield json.dumps({"instance": value, "truth": wire.plain(known)}) + "\n"


def fitted(examples, signature: Signature) -> tuple[dict[str, np.ndarray], Any]:
    """(x, y) as given to `helpers.export`, checked against the model's inputs.

    Raises:
        SchemaError: x does not fit the inputs.  SettingError: this is no pair, or y is of another
            number of rows.
    """
    if not (isinstance(examples, tuple | list) and len(examples) == 2):
        raise SettingError("examples must be a pair (x, y): held-out inputs and their truth.")
    arrays, truth = fit(examples[0], signature), examples[1]
    loose = [name for name, values in arrays.items() if not values.ndim]
    if loose:
        raise SettingError(f'Input "{loose[0]}" has no rows, so examples can\'t be rows of it.')
    rows = len(next(iter(arrays.values())))
    truth = truth if isinstance(truth, dict) else {"": truth}
    truth = {name: _array(values) for name, values in truth.items()}
    for name, values in truth.items():
        if not values.ndim or len(values) != rows:
            raise SettingError(
                f"examples: {rows} inputs, but the truth{name and f' {name}'} has the shape "
                f"{values.shape}; "
                "expected one a row."
            )
        if pd.api.types.infer_dtype(values.ravel(), skipna=True) not in TRUTHS:
            raise SettingError(
                f"examples: the truth{name and f' {name}'} is {values.dtype}; expected numbers, "
                "or classes as whole numbers or texts."
            )
    kept = choose(rows)
    arrays = {name: values[kept] for name, values in arrays.items()}
    truth = {name: values[kept] for name, values in truth.items()}
    return arrays, truth[""] if set(truth) == {""} else truth


def read(content: bytes, where: str, instance: dict | None = None) -> Examples:
    """The file's bytes as rows for `helpers.predict` and their truth.

    Args:
        instance: a table's schema; its rows come back as a frame of its columns.
    Raises:
        DataError: the file is not such lines.
    """
    try:
        found = [json.loads(line) for line in content.splitlines() if line.strip()]
        rows, truths = [one["instance"] for one in found], [one["truth"] for one in found]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f'{where} is not lines of {{"instance": …, "truth": …}} ({error!r}). Export the model '
            "again."
        ) from error
    return Examples(_frame(rows, instance) if instance else by_input(rows), by_input(truths))


def row_form(row, schema: dict):
    """One row as `helpers.predict` takes it, in TensorFlow Serving's row form.

    Args:
        schema: a table's, or {}.
    """
    if isinstance(row, pd.DataFrame):
        gaps, columns = schema["x-missing"], schema["properties"]
        known = row.iloc[0].to_dict().items()
        return {name: gaps.get(columns[name]["type"]) if pd.isna(v) else v for name, v in known}
    return {name: v[0] for name, v in row.items()} if isinstance(row, dict) else row


def _frame(rows: list[dict], schema: dict) -> pd.DataFrame:
    columns = {}
    for name, about in schema["properties"].items():
        values = pd.Series([row[about.get("x-input", name)] for row in rows])
        gap = schema["x-missing"][about["type"]]
        columns[name] = values.where(values != gap) if about["nullable"] else values
    return pd.DataFrame(columns)


def _rows(columns: dict[str, Iterable]) -> Iterator[dict]:
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(columns, values, strict=True))


def _array(values) -> np.ndarray:
    found = np.asarray(values)
    return found.astype(object) if found.dtype.kind in "SU" else found
