"""What a table's model is to predict: the rows where it is known, the task, the classes."""

import numpy as np

from helpers.errors import DataError
from helpers.inputs.answers import check_class_names
from helpers.inputs.columns import (
    Column,
    Digits,
    Remarks,
    as_texts,
    count_levels,
    in_order,
    missing,
    written,
)  # fmt: skip

CLASSES = 100  # a text target with more different values is not a classification
FEWEST_ROWS = 10


def with_target(
    columns: dict[str, Column], source: str, target: str, remarks: Remarks
) -> tuple[np.ndarray, dict[str, Column]]:
    """The rows whose target is known: their numbers in the file, and their columns."""
    known = ~missing(columns[target])
    count = np.count_nonzero(known)
    if count < len(known):
        remarks.notes.append(f"{len(known) - count:,} rows without {target} are left out")
        columns = {name: column[known] for name, column in columns.items()}
    if count < FEWEST_ROWS:
        raise DataError(
            f"{source} has {count} rows with a {target}; expected {FEWEST_ROWS} or more."
        )
    return np.flatnonzero(known), columns


def read_target(
    name: str, column: Column, task: str, notes: list[str]
) -> tuple[Column, str, tuple[str, ...]]:
    """The target's values as floats or classes, the task, and the classes."""
    count = count_levels(column, CLASSES)
    digits = column if isinstance(column, Digits) else None
    many = count > CLASSES or (digits and not digits.blurred())
    if digits and (task == "regression" or (not task and many)):
        column = digits.numbers()
    number = isinstance(column, np.ndarray)
    if count < 2:
        only = written(column)[0]
        raise DataError(f"Every row has the same {name} ({only}); expected two or more.")
    if not task:
        few = number and count <= 10 and len(column) >= 20 * count and bool((column % 1 == 0).all())
        task = "binary" if count == 2 else "multiclass" if few or not number else "regression"
        if few and count > 2:
            notes.append(
                f'{name} holds {count} whole numbers, taken as classes (or set task="regression")'
            )
    if task == "regression":
        if number:
            return column, task, ()
        example = written(column[:1])[0]
        raise DataError(f'{name} is text ("{example}"); a regression needs numbers.')
    if count > CLASSES or (task == "binary" and count > 2):
        most = 2 if task == "binary" else CLASSES
        count = count_levels(column, len(column))
        raise DataError(
            f"{name} has {count:,} different values; {task} takes at most {most}. "
            "Choose another target, or group its values."
        )
    column = digits or column
    texts = as_texts(column) if number and not digits else in_order(column)
    check_class_names(texts.levels)
    return texts, task, tuple(texts.levels)
