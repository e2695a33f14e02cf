"""The answer as a frame: the target's column, then for classes one `probability_…` column each."""

import unicodedata
import zlib
from collections.abc import Iterable

import numpy as np
import pandas as pd

from helpers.errors import DataError
from helpers.inputs.columns import identifier

SHARES = "probabilit"  # how the name of an output of probabilities begins


def probability_name(class_name: str) -> str:
    """The output column with the probability of a class: `probability_` and the class.

    Letters that are not Latin have no place in the name of an output; a checksum stands for them.
    """
    plain = identifier(str(class_name), "")
    letters = [letter for letter in str(class_name) if letter.isalpha() and not letter.isascii()]
    if any("LATIN" not in unicodedata.name(letter, "") for letter in letters):
        plain = f"{plain}_{zlib.crc32(str(class_name).encode()):08x}".lstrip("_")
    return f"probability_{plain}"


def answer_names(target: str, classes: Iterable[str]) -> list[str]:
    """The columns of an answer, in order; for a regression the target alone."""
    return [target, *map(probability_name, classes)]


def answer_frame(target: str, classes: Iterable[str], values, index=None) -> pd.DataFrame:
    """Answers as a frame.

    Args:
        values: (n,) or (n, 1) numbers, or (n, classes) probabilities; the likeliest is the answer.
    """
    values, classes = np.asarray(values), list(classes)
    if not classes:
        return pd.DataFrame({target: values.reshape(-1)}, index=index)
    frame = pd.DataFrame(values, index=index, columns=answer_names(target, classes)[1:])
    frame.insert(0, target, np.array(classes, object)[values.argmax(axis=1)])
    return frame


def flat_frame(answers, index=None) -> pd.DataFrame:
    """Answers of any kind as columns: one a number or text a row, `…_0`, `…_1` of more;
    probabilities last."""
    if isinstance(answers, pd.DataFrame):
        return answers if index is None else answers.set_index(index)
    named, columns = answers if isinstance(answers, dict) else {"answer": answers}, {}
    named = dict(sorted(named.items(), key=lambda item: item[0].startswith(SHARES)))
    for name, values in named.items():
        values = np.asarray(values)
        if not values.size:  # no answers, no columns
            continue
        rows = values.reshape(len(values), -1)
        for place in range(rows.shape[1]):
            columns[name if rows.shape[1] == 1 else f"{name}_{place}"] = rows[:, place]
    return pd.DataFrame(columns, index=index)


def check_class_names(classes: Iterable[str]) -> None:
    """Refuse classes whose columns of probabilities would have the same name."""
    names: dict[str, str] = {}
    for one in classes:
        other = names.setdefault(probability_name(one), one)
        if other != one:
            raise DataError(f'The classes "{other}" and "{one}" differ in signs only; rename one.')
